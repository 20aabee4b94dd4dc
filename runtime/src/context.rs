//! What a method can ask about the turn it runs in, and what travels with a call.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ActorId, Key};
use quark_devices::lease::DeviceLease;
use quark_placement::NoDevice;

use crate::actor::{Actor, DeactivationReason, ToKey};
use crate::actor_ref::ActorRef;
use crate::grid::Grid;
use crate::state::Transaction;
use crate::store::MessageId;
use crate::supervision::{self, ChildStatus, SpawnError};
use crate::turn::{AnySlot, Apart, Lend, ScopeRef};

/// Metadata entries that one request may carry.
pub const METADATA_MAX: usize = 64;

/// A turn's context: who is running, for whom, and on which device.
///
/// Methods take it as `cx: &Cx` where they need it. [`Cx::detached`] makes one for a test that calls a method
/// directly.
pub struct Cx {
    scope: ScopeRef,
    turn: usize,
    request: Request,
}

/// What a context in a test stands on.
pub(crate) struct Detached {
    actor: ActorId,
    device: Option<Arc<DeviceLease>>,
}

impl Cx {
    /// The context of a turn.
    #[inline]
    pub(crate) fn of_turn(scope: ScopeRef, turn: usize, request: Request) -> Self {
        Self { scope, turn, request }
    }

    /// The context of an activation's or deactivation's hook.
    pub(crate) fn of_hook(slot: Arc<dyn AnySlot>) -> Self {
        let scope = ScopeRef::Apart(Box::new(Apart::Slot(slot)));
        Self { scope, turn: 0, request: Request::default() }
    }

    /// A context without a silo, for a test that calls a method directly. Its grid hosts nothing.
    pub fn detached(actor_type: &'static str, key: impl Into<Key>) -> Self {
        let actor = ActorId { actor_type, key: key.into() };
        let scope = ScopeRef::Apart(Box::new(Apart::Detached(Detached { actor, device: None })));
        Self { scope, turn: 0, request: Request::default() }
    }

    /// The same, on a device.
    pub fn with_device(mut self, device: Arc<DeviceLease>) -> Self {
        if let ScopeRef::Apart(apart) = &mut self.scope
            && let Apart::Detached(detached) = &mut **apart
        {
            detached.device = Some(device);
        }
        self
    }

    /// The same, with what a caller would have sent along.
    pub fn with_request(mut self, context: RequestContext) -> Self {
        self.request = Request::new(Some(Arc::new(context)), None);
        self
    }

    /// The actor that is running.
    pub fn actor(&self) -> ActorId {
        match self.scope.resolve() {
            Ok(slot) => slot.id(),
            Err(detached) => detached.actor.clone(),
        }
    }

    /// The running actor's key.
    pub fn key(&self) -> Key {
        self.actor().key
    }

    /// The way to other actors and to streams.
    pub fn grid(&self) -> Grid {
        self.slot().map_or_else(Grid::empty, AnySlot::grid)
    }

    /// The actor's share of its device.
    ///
    /// # Errors
    /// [`DeviceAbsent`] when the type declares no `gpu(…)`, or declares it optional and none fits: the actor then
    /// runs on the CPU.
    pub fn device(&self) -> Result<Arc<DeviceLease>, DeviceAbsent> {
        match self.scope.resolve() {
            Ok(slot) => slot.device(),
            Err(detached) => detached.device.clone().ok_or(DeviceAbsent::Detached),
        }
    }

    /// Lends the running actor to its own call chain while `future` is awaited.
    ///
    /// The loan takes the `&mut self` borrow, so the compiler proves that the waiting method touches nothing,
    /// and calls of the same chain may run on the actor meanwhile, one after another. Everybody else waits as
    /// usual. The method goes on only between those turns, and dropping the future ends the loan; calls of the
    /// chain that then still wait for it end in [`CallError::Deadlock`](crate::CallError::Deadlock).
    ///
    /// Await it in the method itself: inside a future that is boxed apart it lends nothing.
    pub fn lend<'a, A, F>(&'a self, actor: &'a mut A, future: F) -> Lend<'a, F::IntoFuture>
    where
        A: Send + 'static,
        F: IntoFuture,
    {
        Lend::new(self, actor, future.into_future())
    }

    /// Asks for this actor's deactivation as soon as no turn runs on it. Messages that wait begin the next one.
    pub fn deactivate(&self) {
        if let Some(slot) = self.slot() {
            slot.request_deactivation(DeactivationReason::Requested);
        }
    }

    /// Makes the actor `B/key` a child of the running one, and activates it. The running actor's type supervises
    /// it from here on, and it ends with the running actor's activation; see [`supervision`].
    ///
    /// It does not wait for the activation: calls do. A child that is there already stays as it is, and one that was
    /// stopped is started again.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing has changed.
    pub fn spawn<B: Actor>(&self, key: impl ToKey) -> Result<B::Ref, SpawnError> {
        let grid = self.grid();
        let (Some(parent), Some(hosted)) = (self.slot(), grid.hosted::<B>()) else {
            return Err(SpawnError::NotHosted(const { &B::SPEC }));
        };
        let child = key.with_key(|key| hosted.slot(key));
        supervision::adopt(parent, &child)?;
        Ok(B::Ref::from(ActorRef::new(Some(child))))
    }

    /// Ends a child of the running actor: it is deactivated once its turns have ended, and nobody's child from now
    /// on. False if it is no child of the running actor.
    pub fn stop_child<B: Actor>(&self, key: impl ToKey) -> bool {
        let grid = self.grid();
        let Some(hosted) = grid.hosted::<B>() else { return false };
        key.with_key(|key| supervision::dismiss(&self.actor(), &*hosted.slot(key)))
    }

    /// The running actor's children, in the order they were spawned.
    pub fn children(&self) -> Vec<ChildStatus> {
        self.grid().children_of(&self.actor())
    }

    /// When the caller stops waiting, as the silo's clock counts ([`now`](Self::now)). Calls made from here inherit
    /// it.
    pub fn deadline(&self) -> Option<Duration> {
        self.request.deadline()
    }

    /// What the caller has left of its deadline; zero once it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        self.request.deadline().map(|deadline| deadline.saturating_sub(self.now()))
    }

    /// What the silo's clock says: time since its origin. Zero in a context without a silo.
    pub fn now(&self) -> Duration {
        self.slot().map_or(Duration::ZERO, |slot| slot.executor().timers().now())
    }

    /// Waits for so long on the silo's clock, which a test may own. Dropping the future ends the wait; in a context
    /// without a silo there is no clock, and it waits for nothing.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let timers = self.slot().map(|slot| slot.executor().timers().clone());
        async move {
            if let Some(timers) = timers {
                timers.sleep_until(timers.now().saturating_add(duration)).await;
            }
        }
    }

    /// What the caller sent along. Calls made from here send the same.
    pub fn request(&self) -> Option<&RequestContext> {
        self.request.context().map(|context| &**context)
    }

    /// The id that ties together all that one outside request set off.
    pub fn correlation_id(&self) -> Option<&str> {
        self.request()?.correlation_id.as_deref()
    }

    /// The W3C trace parent of the request.
    pub fn trace_parent(&self) -> Option<TraceParent> {
        self.request()?.trace_parent
    }

    /// The id of the durable message that the turn runs for: the same at each of its deliveries.
    pub fn message_id(&self) -> Option<&MessageId> {
        self.request()?.message.as_ref()
    }

    /// Begins to write several things at once; see [`Transaction`].
    pub fn transaction<'a>(&self) -> Transaction<'a> {
        Transaction::new(self)
    }

    /// An entry of the request's metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.request()?.metadata.get(name).map(String::as_str)
    }

    #[inline]
    pub(crate) fn slot(&self) -> Option<&dyn AnySlot> {
        self.scope.resolve().ok()
    }

    /// A turn's own slot, as its `Arc` has it.
    pub(crate) fn turn_slot(&self) -> Option<NonNull<dyn AnySlot>> {
        match &self.scope {
            ScopeRef::Turn(slot) => Some(*slot),
            ScopeRef::Apart(_) => None,
        }
    }

    pub(crate) fn turn(&self) -> usize {
        self.turn
    }

    pub(crate) fn carried(&self) -> &Request {
        &self.request
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("actor", &self.actor())
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Why a turn has no device.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceAbsent {
    /// The type asks for none.
    #[error("{actor_type} declares no device; add gpu(vram = …) to its #[actor(…)]")]
    NotDeclared {
        /// The actor type.
        actor_type: &'static str,
    },
    /// The type's need is optional, and no device fits it.
    #[error("{0}")]
    NoneFits(Arc<NoDevice>),
    /// The context was made in a test without a device.
    #[error("this context was made without a device; give it one with Cx::with_device")]
    Detached,
}

/// What travels with one call. Most calls carry nothing, and that costs them one word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request(Option<Arc<Carried>>);

#[derive(Debug)]
struct Carried {
    context: Option<Arc<RequestContext>>,
    /// On the silo's clock.
    deadline: Option<Duration>,
}

impl Request {
    pub(crate) fn new(context: Option<Arc<RequestContext>>, deadline: Option<Duration>) -> Self {
        let something = context.is_some() || deadline.is_some();
        Self(something.then(|| Arc::new(Carried { context, deadline })))
    }

    pub(crate) fn context(&self) -> Option<&Arc<RequestContext>> {
        self.0.as_ref()?.context.as_ref()
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.0.as_ref()?.deadline
    }

    /// What calls carry that are made in the turn of this one.
    #[inline]
    pub(crate) fn for_calls(&self) -> Self {
        match self.context() {
            Some(context) if context.message.is_some() => self.without_message(context),
            _ => self.clone(),
        }
    }

    #[cold]
    fn without_message(&self, context: &RequestContext) -> Self {
        let context = RequestContext { message: None, ..context.clone() };
        Self::new((context != RequestContext::new()).then(|| Arc::new(context)), self.deadline())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// What a request carries through every call it sets off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// Ties together all that one outside request set off.
    pub correlation_id: Option<Arc<str>>,
    /// W3C Trace Context.
    pub trace_parent: Option<TraceParent>,
    /// Free entries, at most [`METADATA_MAX`]; further ones are not taken.
    metadata: BTreeMap<String, String>,
    /// Which durable message this one call is. Calls that it sets off do not carry it on.
    message: Option<MessageId>,
}

impl RequestContext {
    /// An empty context.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the correlation id.
    pub fn correlation_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the trace parent.
    pub fn trace_parent(mut self, parent: TraceParent) -> Self {
        self.trace_parent = Some(parent);
        self
    }

    /// Says which durable message the call is.
    pub(crate) fn message(mut self, id: MessageId) -> Self {
        self.message = Some(id);
        self
    }

    /// Adds a metadata entry, unless there are [`METADATA_MAX`] already.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if self.metadata.len() < METADATA_MAX || self.metadata.contains_key(&name) {
            self.metadata.insert(name, value.into());
        }
        self
    }

    /// An entry of the metadata.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }
}

/// The `traceparent` header of [W3C Trace Context](https://www.w3.org/TR/trace-context/), version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The whole trace.
    pub trace_id: u128,
    /// The span that sent this.
    pub parent_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

/// Why a text is no [`TraceParent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no W3C traceparent; it looks like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct ParseTraceParentError;

impl std::str::FromStr for TraceParent {
    type Err = ParseTraceParentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('-').collect();
        let &[version, trace, parent, flags] = parts.as_slice() else { return Err(ParseTraceParentError) };
        let hex = |part: &str, digits: usize| {
            let lower = part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            (part.len() == digits && lower).then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let known = version == "00";
        match (hex(trace, 32), hex(parent, 16), hex(flags, 2)) {
            (Some(trace_id), Some(parent_id), Some(flags)) if known && trace_id != 0 && parent_id != 0 => {
                Ok(Self { trace_id, parent_id: parent_id as u64, flags: flags as u8 })
            }
            _ => Err(ParseTraceParentError),
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_parent_survives_its_text() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: TraceParent = text.parse().unwrap();
        assert_eq!(parent.to_string(), text);
    }

    #[test]
    fn a_malformed_trace_parent_is_refused() {
        for text in [
            "",
            "00-0-0-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(ParseTraceParentError), "{text}");
        }
    }

    #[test]
    fn metadata_is_bounded() {
        let full = (0..METADATA_MAX + 5)
            .fold(RequestContext::new(), |context, n| context.metadata(n.to_string(), ""));
        assert_eq!(full.metadata.len(), METADATA_MAX);
        assert_eq!(full.metadata("0", "changed").get("0"), Some("changed"));
    }

    #[test]
    fn a_detached_context_names_its_actor_and_has_no_device() {
        let cx = Cx::detached("test.actor", "a");
        assert_eq!(cx.actor().to_string(), "test.actor/a");
        assert!(matches!(cx.device(), Err(DeviceAbsent::Detached)));
    }
}

//! Commands on their way to the nodes that answer for them, and their answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use quark_runtime::store::{Health, HealthState, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::sync::{Notify, Semaphore};

use super::dial::Dialer;
use super::error::Errors;
use super::keys::{Keys, Slot, Tag};
use super::link::{Effect, Link, Task};
use super::routes::{self, Routes};
use super::scripts::{self, Scripts};
use super::settings::{Layout, Node, RedisSettings};

/// How often a command follows a cluster that is moving slots, or brings its script along.
const ROUNDS_MAX: usize = 5;

/// The shortest time between two questions who answers.
const REFRESH_MIN: Duration = Duration::from_millis(100);

/// The longest time between two looks whether a node has gone.
const REFRESH_MAX: Duration = Duration::from_secs(1);

/// How many reads may wait for items of streams at the same time, each on a connection of its own.
const WAITING_READS_MAX: usize = 256;

/// How many connections for such reads are kept for the next ones.
const IDLE_READERS_MAX: usize = 16;

/// The longest that such a connection waits at once; a longer read asks again.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// One command and the slot of its keys.
pub(super) struct Call {
    pub(super) slot: Slot,
    pub(super) command: Cmd,
}

impl Call {
    pub(super) fn new(tag: &Tag, command: Cmd) -> Self {
        Self { slot: tag.slot, command }
    }
}

/// One Redis, whatever it consists of.
pub(super) struct Client {
    pub(super) errors: Errors,
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    nodes: Arc<Nodes>,
    waiting_reads: Semaphore,
    idle_readers: Mutex<Vec<(Node, MultiplexedConnection)>>,
    _warden: Option<Task>,
}

/// The nodes and their connections.
struct Nodes {
    dialer: Arc<Dialer>,
    known: RwLock<Known>,
    /// Told when the routes seem wrong.
    stale: Notify,
}

struct Known {
    routes: Arc<Routes>,
    links: HashMap<Node, Arc<Link>>,
    /// Why nobody could say who answers, at the last question.
    failure: Option<StoreError>,
}

/// Commands on their way to one node.
struct Group {
    node: Node,
    link: Arc<Link>,
    pipeline: Pipeline,
    /// What each command of the pipeline is.
    members: Vec<Member>,
}

/// What a command of a pipeline is.
#[derive(Clone, Copy)]
enum Member {
    /// It prepares the next one; its answer is of no interest, since a refusal shows there.
    Helper,
    /// One of the calls, by its place among them; `asking` if its node is still taking the slot over.
    Call { place: usize, asking: bool },
}

impl Group {
    fn help(&mut self, command: Cmd) {
        self.members.push(Member::Helper);
        self.pipeline.add_command(command);
    }

    fn add(&mut self, place: usize, asking: bool, command: Cmd) {
        if asking {
            self.help(redis::cmd("ASKING"));
        }
        self.members.push(Member::Call { place, asking });
        self.pipeline.add_command(command);
    }
}

/// Where a command goes next.
enum Next {
    /// It is answered.
    Answer(Result<Value, StoreError>),
    /// To the same node, after the scripts.
    WithScripts,
    /// To this node.
    Moved(Node),
    /// To this node, out of turn.
    Ask(Node),
}

impl Client {
    /// Connects. An error says that nobody answers now, or that this Redis cannot be used.
    pub(super) async fn connect(settings: RedisSettings) -> Result<Self, StoreError> {
        let settings = Arc::new(settings);
        let errors = Errors::new(settings.clone());
        let dialer = Arc::new(Dialer::new(settings.clone(), errors.clone()).await?);
        let routes = routes::discover(&dialer, &[]).await?;
        let known = Known { routes: Arc::new(Routes::Unknown), links: HashMap::new(), failure: None };
        let nodes = Arc::new(Nodes { dialer, known: RwLock::new(known), stale: Notify::new() });
        nodes.apply(routes);
        let warden = match settings.layout {
            Layout::Single(_) => None,
            Layout::Cluster(_) | Layout::Sentinel { .. } => Some(Task::spawn(watch_over(nodes.clone()))),
        };
        let client = Self {
            errors,
            keys: Keys::new(&settings.prefix),
            scripts: Scripts::new(),
            nodes,
            waiting_reads: Semaphore::new(WAITING_READS_MAX),
            idle_readers: Mutex::default(),
            _warden: warden,
        };
        let links: Vec<_> = client.nodes.known.read().links.values().cloned().collect();
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        for link in links {
            link.send(&ping, Effect::Reads).await?;
        }
        Ok(client)
    }

    /// How long an answer is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.nodes.dialer.settings.response_timeout
    }

    /// Sends one command.
    pub(super) async fn call(&self, call: Call, effect: Effect) -> Result<Value, StoreError> {
        let answers = self.run(vec![call], effect).await;
        answers.into_iter().next().unwrap_or_else(|| Err(self.errors.unexpected("no answer")))
    }

    /// Sends commands, all at once, and gives their answers in the same order; or the first error.
    pub(super) async fn call_all(&self, calls: Vec<Call>, effect: Effect) -> Result<Vec<Value>, StoreError> {
        self.run(calls, effect).await.into_iter().collect()
    }

    /// Sends commands, those of one node as one pipeline, and gives their answers in the same order.
    ///
    /// A command that its node refuses because another one answers for it now goes there; none is sent again that
    /// may have been done.
    pub(super) async fn run(&self, calls: Vec<Call>, effect: Effect) -> Vec<Result<Value, StoreError>> {
        let mut answers: Vec<Option<Result<Value, StoreError>>> = calls.iter().map(|_| None).collect();
        let mut groups: Vec<Group> = Vec::with_capacity(1);
        let routes = self.nodes.known.read().routes.clone();
        for (place, call) in calls.into_iter().enumerate() {
            match routes.node(call.slot) {
                Some(node) => self.group(&mut groups, node).add(place, false, call.command),
                None => {
                    self.nodes.stale.notify_one();
                    answers[place] = Some(Err(self.errors.unavailable("no node answers for this slot")));
                }
            }
        }
        for _ in 0..ROUNDS_MAX {
            if groups.is_empty() {
                break;
            }
            let sent = join_all(groups.iter().map(|group| group.link.send(&group.pipeline, effect))).await;
            let mut next_groups = Vec::new();
            for (group, sent) in groups.iter().zip(sent) {
                self.take(group, sent, &mut answers, &mut next_groups);
            }
            groups = next_groups;
        }
        let lost = || Err(self.errors.unavailable("it was sent from node to node too often"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
    }

    /// The pipeline of a node.
    fn group<'a>(&self, groups: &'a mut Vec<Group>, node: &Node) -> &'a mut Group {
        let known = groups.iter().position(|group| group.node == *node);
        let index = known.unwrap_or_else(|| {
            let (node, link) = (node.clone(), self.nodes.link(node));
            groups.push(Group { node, link, pipeline: Pipeline::new(), members: Vec::new() });
            groups.len() - 1
        });
        &mut groups[index]
    }

    /// Takes in what one node answered, and sees which commands must go on.
    fn take(
        &self,
        group: &Group,
        sent: Result<Vec<Value>, StoreError>,
        answers: &mut [Option<Result<Value, StoreError>>],
        next_groups: &mut Vec<Group>,
    ) {
        let values = match sent {
            Ok(values) => values,
            Err(error) => {
                self.nodes.stale.notify_one();
                for member in &group.members {
                    if let Member::Call { place, .. } = member {
                        answers[*place] = Some(Err(error.clone()));
                    }
                }
                return;
            }
        };
        let mut scripts_sent = false;
        for ((member, command), value) in group.members.iter().zip(group.pipeline.cmd_iter()).zip(values) {
            let Member::Call { place, asking } = *member else { continue };
            match self.next(group, value) {
                Next::Answer(answer) => answers[place] = Some(answer),
                Next::Moved(node) => self.group(next_groups, &node).add(place, false, command.clone()),
                Next::Ask(node) => self.group(next_groups, &node).add(place, true, command.clone()),
                Next::WithScripts => {
                    let next = self.group(next_groups, &group.node);
                    if !std::mem::replace(&mut scripts_sent, true) {
                        scripts::loads().for_each(|load| next.help(load));
                    }
                    next.add(place, asking, command.clone());
                }
            }
        }
    }

    fn next(&self, group: &Group, value: Value) -> Next {
        let Value::ServerError(error) = value else { return Next::Answer(Ok(value)) };
        let refused = Next::Answer(Err(self.errors.server(&error)));
        let redirect = || routes::read_redirect(error.details().unwrap_or_default(), &group.node.host);
        match error.kind() {
            Some(ServerErrorKind::NoScript) => Next::WithScripts,
            Some(ServerErrorKind::Moved) => {
                self.nodes.stale.notify_one();
                redirect().map_or(refused, Next::Moved)
            }
            Some(ServerErrorKind::Ask) => redirect().map_or(refused, Next::Ask),
            Some(ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown) => {
                self.nodes.stale.notify_one();
                refused
            }
            _ => refused,
        }
    }

    /// Sends one command that waits for up to `wait`, on a connection of its own. It reads: without an answer nothing
    /// is lost.
    pub(super) async fn wait_for(&self, call: Call, wait: Duration) -> Result<Value, StoreError> {
        let Ok(_permit) = self.waiting_reads.try_acquire() else {
            return Err(self.errors.unavailable("too many reads are waiting already"));
        };
        let node = self.nodes.known.read().routes.node(call.slot).cloned();
        let node = node.ok_or_else(|| self.errors.unavailable("no node answers for this slot"))?;
        let idle = {
            let mut idle = self.idle_readers.lock();
            let place = idle.iter().position(|(of, _)| *of == node);
            place.map(|place| idle.swap_remove(place).1)
        };
        let (fresh, mut connection) = match idle {
            Some(connection) => (false, connection),
            None => (true, self.nodes.dialer.dial_plain(&node, WAIT_MAX).await?),
        };
        debug_assert!(wait <= WAIT_MAX, "the connection waits no longer");
        match connection.send_packed_command(&call.command).await {
            Ok(answer) => {
                let mut idle = self.idle_readers.lock();
                if idle.len() < IDLE_READERS_MAX {
                    idle.push((node, connection));
                }
                drop(idle);
                match answer {
                    Value::ServerError(error) => {
                        self.nodes.stale.notify_one();
                        Err(self.errors.server(&error))
                    }
                    answer => Ok(answer),
                }
            }
            // A connection that was kept may have ended long ago. So have the others, probably.
            Err(_) if !fresh => {
                self.idle_readers.lock().retain(|(of, _)| *of != node);
                Ok(Value::Nil)
            }
            Err(error) => Err(self.errors.unavailable(&error.to_string())),
        }
    }
}

impl Health for Client {
    fn state(&self) -> HealthState {
        let known = self.nodes.known.read();
        if let Some(error) = &known.failure {
            return HealthState::Down(error.to_string().into());
        }
        let down = |link: &Arc<Link>| match link.health() {
            HealthState::Up => None,
            down => Some(down),
        };
        known.links.values().find_map(down).unwrap_or(HealthState::Up)
    }
}

impl Nodes {
    /// The connection to a node, begun if it is a new one.
    fn link(&self, node: &Node) -> Arc<Link> {
        if let Some(link) = self.known.read().links.get(node) {
            return link.clone();
        }
        let mut known = self.known.write();
        let link = || Arc::new(Link::new(self.dialer.clone(), node.clone()));
        known.links.entry(node.clone()).or_insert_with(link).clone()
    }

    /// Takes in who answers now. Connections to others end when their last answers are in.
    fn apply(&self, routes: Routes) {
        let nodes: Vec<Node> = routes.nodes().into_iter().cloned().collect();
        {
            let mut known = self.known.write();
            known.links.retain(|node, _| nodes.contains(node));
            known.failure = None;
            if *known.routes != routes {
                tracing::info!(store = %self.dialer.errors.store, ?nodes, "nodes of the store");
                known.routes = Arc::new(routes);
            }
        }
        for node in &nodes {
            self.link(node);
        }
    }

    fn is_whole(&self) -> bool {
        let known = self.known.read();
        known.failure.is_none() && known.links.values().all(|link| link.health() == HealthState::Up)
    }
}

/// Asks who answers whenever that seems to have changed.
async fn watch_over(nodes: Arc<Nodes>) {
    loop {
        let told = tokio::time::timeout(REFRESH_MAX, nodes.stale.notified()).await.is_ok();
        if told || !nodes.is_whole() {
            let known: Vec<Node> = nodes.known.read().links.keys().cloned().collect();
            match routes::discover(&nodes.dialer, &known).await {
                Ok(routes) => nodes.apply(routes),
                Err(error) => nodes.known.write().failure = Some(error),
            }
        }
        tokio::time::sleep(REFRESH_MIN).await;
    }
}

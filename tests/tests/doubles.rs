//! Doubles and faults of the test kit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quark::prelude::*;
use quark::{ActivationCause, StreamId};
use quark_testkit::{Double, Faults, TestSilo};
use quark_tests::{on_both_runtimes, soon};

/// Cannot be made in a test.
#[derive(Actor)]
#[actor(name = "double.camera", factory)]
struct Camera;

#[methods]
impl Camera {
    pub async fn shoot(&mut self, exposure: u64, name: String) -> Result<String, String> {
        unreachable!("a camera that is not there shot {name} for {exposure}")
    }

    pub async fn battery(&self) -> u8 {
        unreachable!("a camera that is not there has no battery")
    }

    #[coalesce]
    pub async fn lens(&self, zoom: u32) -> u32 {
        unreachable!("a camera that is not there has no lens of {zoom}")
    }

    #[on_stream("double/shots")]
    async fn on_shot(&mut self, exposure: u64) -> Result<()> {
        unreachable!("a camera that is not there shot for {exposure}")
    }
}

#[derive(Actor)]
#[actor(name = "double.studio")]
struct Studio {
    shots: u64,
}

#[methods]
impl Studio {
    pub async fn photograph(&mut self, cx: &Cx) -> Result<String, String> {
        let camera = cx.grid().actor::<Camera>("front");
        let shot = camera.shoot(self.shots, "studio".to_owned()).timeout(Duration::from_secs(5)).await;
        self.shots += 1;
        shot.map_err(|error| error.to_string())
    }

    pub async fn shots(&self) -> u64 {
        self.shots
    }

    pub async fn may_fail(&mut self) -> Result<u64, String> {
        self.shots += 1;
        Ok(self.shots)
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_double_answers_as_scripted_and_records_what_it_heard() {
    on_both_runtimes(|| async {
        let camera = Double::<Camera>::new();
        let shots = Arc::new(AtomicU64::new(0));
        camera.on(CameraRef::shoot, move |(exposure, name)| {
            let shot = shots.fetch_add(1, Ordering::SeqCst);
            if shot < 2 { Ok(format!("{name} {exposure}")) } else { Err("no film".to_owned()) }
        });
        camera.on(CameraRef::battery, |()| Ok(7));
        camera.on(CameraRef::lens, |(zoom,)| Ok(zoom * 2));
        let silo = TestSilo::builder().double(&camera).host::<Studio>().start().unwrap();
        let studio = silo.grid().actor::<Studio>("one");
        assert_eq!(studio.photograph().await.unwrap(), "studio 0");
        assert_eq!(studio.photograph().await.unwrap(), "studio 1");
        assert_eq!(studio.photograph().await.unwrap_err().to_string(), "no film");
        let front = silo.grid().actor::<Camera>("front");
        assert_eq!((front.battery().await.unwrap(), front.lens(4).await.unwrap()), (7, 8));

        let heard = camera.take_calls(CameraRef::shoot);
        let exposures: Vec<_> = heard.iter().map(|call| call.arguments.0).collect();
        assert_eq!(
            (exposures.as_slice(), heard[0].actor.to_string().as_str()),
            (&[0, 1, 2][..], "double.camera/front")
        );
        assert!(camera.take_calls(CameraRef::shoot).is_empty(), "they were taken");
        assert_eq!(
            silo.grid().census().types.iter().find(|kind| kind.name == "double.camera").unwrap().active,
            0
        );
    });
}

#[test]
fn a_double_hears_one_way_messages() {
    on_both_runtimes(|| async {
        let camera = Double::<Camera>::new();
        camera.on(CameraRef::battery, |()| Ok(1));
        let silo = TestSilo::builder().double(&camera).start().unwrap();
        silo.grid().actor::<Camera>("back").battery().tell().unwrap();
        assert_eq!(camera.take_calls(CameraRef::battery).len(), 1);
        // What the script does not know is said in the log; nobody waits for it.
        let stream = StreamId::new("double/shots", "back").unwrap();
        silo.grid().publish(&stream, 5_u64).await.unwrap();
    });
}

#[test]
fn a_double_that_never_answers_is_ended_by_the_callers_timeout() {
    on_both_runtimes(|| async {
        let camera = Double::<Camera>::new();
        camera.never(CameraRef::shoot);
        let silo = TestSilo::builder().double(&camera).host::<Studio>().start().unwrap();
        let studio = silo.grid().actor::<Studio>("one");
        let call = tokio::spawn(async move { studio.photograph().await });
        silo.advance(4 * SECOND).await;
        assert!(!call.is_finished());
        silo.advance(SECOND).await;
        let late = soon(call).await.unwrap().unwrap_err().to_string();
        assert!(late.contains("did not answer shoot in time"), "{late}");
    });
}

#[test]
fn a_method_without_an_answer_says_what_to_script() {
    on_both_runtimes(|| async {
        let silo = TestSilo::builder().double(&Double::<Camera>::new()).start().unwrap();
        let error = silo.grid().actor::<Camera>("front").battery().await.unwrap_err();
        assert!(error.to_string().contains("the stand-in for Camera has no answer for battery"), "{error}");
    });
}

#[test]
fn a_double_may_answer_with_what_becomes_of_calls() {
    on_both_runtimes(|| async {
        let camera = Double::<Camera>::new();
        camera.on_async(CameraRef::battery, |()| async {
            tokio::task::yield_now().await;
            Err(CallError::Draining(Box::new(quark::ActorId {
                actor_type: "double.camera",
                key: "x".into(),
            })))
        });
        let silo = TestSilo::builder().double(&camera).start().unwrap();
        let error = silo.grid().actor::<Camera>("front").battery().await.unwrap_err();
        assert!(matches!(error, CallError::Draining(_)), "{error}");
    });
}

#[test]
fn the_named_calls_of_a_method_panic_and_no_others() {
    on_both_runtimes(|| async {
        let faults = Faults::<Studio>::new();
        faults.panic_at(StudioRef::may_fail, 2..=3, "struck by lightning");
        let silo = TestSilo::builder().host::<Studio>().faults(&faults).start().unwrap();
        let (studio, other) = (silo.grid().actor::<Studio>("one"), silo.grid().actor::<Studio>("two"));
        assert_eq!(studio.may_fail().await.unwrap(), 1);
        let struck = studio.may_fail().await.unwrap_err();
        assert_eq!(struck.to_string(), "double.studio/one panicked in may_fail: struck by lightning");
        assert!(
            matches!(other.may_fail().await, Err(CallError::Panicked(_))),
            "calls count for all of a type"
        );
        assert_eq!(studio.may_fail().await.unwrap(), 1, "a fresh actor");
        assert_eq!((faults.calls(StudioRef::may_fail), faults.calls(StudioRef::shots)), (4, 0));
        assert_eq!(faults.activations(), 3);
    });
}

#[test]
fn a_one_way_message_may_be_struck_too() {
    on_both_runtimes(|| async {
        let faults = Faults::<Studio>::new();
        faults.panic_at(StudioRef::may_fail, 1, "struck by lightning");
        let silo = TestSilo::builder().host::<Studio>().faults(&faults).start().unwrap();
        let studio = silo.grid().actor::<Studio>("one");
        studio.may_fail().tell().unwrap();
        studio.may_fail().tell().unwrap();
        silo.settle().await;
        assert_eq!(studio.shots().await.unwrap(), 1, "only the second has run, on a fresh actor");
        assert_eq!(faults.activations(), 2);
    });
}

#[test]
fn an_error_takes_the_place_of_a_call() {
    on_both_runtimes(|| async {
        let faults = Faults::<Studio>::new();
        faults.error_at(StudioRef::may_fail, 2.., || "out of film".to_owned());
        let silo = TestSilo::builder().host::<Studio>().faults(&faults).start().unwrap();
        let studio = silo.grid().actor::<Studio>("one");
        assert_eq!(studio.may_fail().await.unwrap(), 1);
        assert!(matches!(studio.may_fail().await, Err(CallError::Actor(error)) if error == "out of film"));
        assert_eq!(studio.shots().await.unwrap(), 1, "it did not run");
    });
}

#[test]
fn a_delayed_call_keeps_its_actor_busy_on_the_tests_time() {
    on_both_runtimes(|| async {
        let faults = Faults::<Studio>::new();
        faults.delay_at(StudioRef::may_fail, 1, 10 * SECOND);
        let silo = TestSilo::builder().host::<Studio>().faults(&faults).start().unwrap();
        let studio = silo.grid().actor::<Studio>("one");
        let call = tokio::spawn({
            let studio = studio.clone();
            async move { studio.may_fail().await }
        });
        silo.advance(9 * SECOND).await;
        assert!(!call.is_finished());
        let late = tokio::spawn(async move { studio.shots().timeout(SECOND / 2).await });
        silo.advance(SECOND / 2).await;
        assert!(matches!(soon(late).await.unwrap(), Err(CallError::Timeout(_))), "it is busy");
        silo.advance(SECOND / 2).await;
        assert_eq!(soon(call).await.unwrap().unwrap(), 1);
    });
}

#[test]
fn the_named_activations_fail() {
    on_both_runtimes(|| async {
        let faults = Faults::<Studio>::new();
        faults.fail_activation_at(1, "no room");
        let silo = TestSilo::builder().host::<Studio>().faults(&faults).start().unwrap();
        let studio = silo.grid().actor::<Studio>("one");
        let failed = studio.may_fail().await.unwrap_err();
        let CallError::Activation(error) = &failed else { panic!("{failed}") };
        assert!(matches!(error.cause, ActivationCause::Failed(_)) && failed.to_string().ends_with("no room"));
        assert_eq!(studio.may_fail().await.unwrap(), 1);
    });
}

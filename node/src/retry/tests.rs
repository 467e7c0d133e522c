use std::cell::Cell;

use layercake_wire::payload::Fingerprint;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The first waits without jitter, in milliseconds.
fn waits(retry: &Retry) -> Vec<u128> {
    retry.delays(|| 0.5).take(8).map(|wait| wait.as_millis()).collect()
}

#[test]
fn the_steps_come_first_and_then_the_regular_wait() {
    let steps = Retry::steps([ms(0), ms(50), ms(200)]);
    assert_eq!(waits(&steps), [0, 50, 200]);
    let regular = steps.then_every(ms(1000));
    assert_eq!(waits(&regular), [0, 50, 200, 1000, 1000, 1000, 1000, 1000]);
    assert_eq!(waits(&regular.clone().limit(5)), [0, 50, 200, 1000]);
    assert_eq!(waits(&regular.limit(2)), [0]);
    assert_eq!(waits(&Retry::never()), [0u128; 0]);
}

#[test]
fn waits_grow_up_to_the_greatest() {
    let growing = Retry::exponential(ms(200), 2.0, ms(3000));
    assert_eq!(waits(&growing), [200, 400, 800, 1600, 3000, 3000, 3000, 3000]);
    assert_eq!(growing.delay(u32::MAX, 0.5), Some(ms(3000)));
    let slowly = Retry::exponential(ms(1000), 1.5, MAX_DELAY).limit(4);
    assert_eq!(waits(&slowly), [1000, 1500, 2250]);
    assert_eq!(waits(&Retry::exponential(ms(7), 1e300, ms(8)).limit(3)), [7, 8]);
}

#[test]
fn jitter_spreads_either_way_and_keeps_the_mean() {
    let retry = Retry::steps([ms(1000)]).jitter(0.25);
    for (draw, expected) in
        [(0.0, 750), (0.5, 1000), (1.0, 1250), (9.0, 1250), (-1.0, 750), (f64::NAN, 1000)]
    {
        assert_eq!(retry.delay(0, draw), Some(ms(expected)), "{draw}");
    }
    let full = Retry::steps([ms(1000)]).jitter(1.0);
    assert_eq!((full.delay(0, 0.0), full.delay(0, 1.0)), (Some(ms(0)), Some(ms(2000))));
}

#[test]
fn waits_that_add_up_to_too_much_are_not_taken() {
    let retry = Retry::steps([]).then_every(ms(300)).within(ms(1000));
    assert_eq!(waits(&retry), [300, 300, 300]);
    assert_eq!(waits(&retry.within(ms(900))), [300, 300, 300]);
    let mut delays = Retry::steps([ms(1), ms(2)]).delays(|| 0.5);
    assert_eq!((delays.next(), delays.next(), delays.next()), (Some(ms(1)), Some(ms(2)), None));
    assert_eq!(delays.taken(), 2);
    delays.reset();
    assert_eq!((delays.taken(), delays.next()), (0, Some(ms(1))));
}

#[test]
fn improbable_values_in_a_program_are_adjusted() {
    let busy = Retry::steps([Duration::MAX]).then_every(Duration::ZERO);
    assert_eq!(busy.delay(0, 0.5), Some(MAX_DELAY));
    assert_eq!(busy.delay(1, 0.5), Some(MIN_EVERY));
    assert_eq!(Retry::steps(vec![ms(1); 1000]).delays(|| 0.5).count(), MAX_STEPS);
    assert_eq!(busy.clone().limit(0), busy.clone().limit(1));
    assert_eq!(busy.clone().jitter(7.0), busy.clone().jitter(1.0));
    for none in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        assert_eq!(busy.clone().jitter(none), busy);
    }
    for none in [f64::NAN, f64::INFINITY, 0.5, -3.0] {
        assert_eq!(waits(&Retry::exponential(ms(5), none, ms(9)).limit(3)), [5, 5]);
    }
    let least = Retry::exponential(ms(50), 2.0, ms(1)).limit(3);
    assert_eq!(waits(&least), [50, 50]);
    // Also with the most of everything, nothing overflows.
    let most = Retry::exponential(Duration::MAX, f64::MAX, Duration::MAX).jitter(1.0);
    assert_eq!(most.delay(u32::MAX, 1.0), Some(2 * MAX_DELAY));
}

fn decoded(value: Value) -> Result<Retry, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[test]
fn a_schedule_can_be_sent_and_typed() {
    let retry = Retry::steps([ms(0), ms(1500)]).then_every(ms(60_000)).limit(5).jitter(0.2);
    let json = json!({
        "steps": ["0s", "1.5s"], "every": "1m", "factor": null, "max": null, "limit": 5,
        "jitter": 0.2, "within": null,
    });
    assert_eq!(serde_json::to_value(&retry).expect("encodes"), json);
    assert_eq!(decoded(json), Ok(retry));
    assert_eq!(decoded(json!({})), Ok(Retry::never()));
    let growing = json!({ "every": "200ms", "factor": 2, "max": "30s", "within": "1h" });
    let expected = Retry::exponential(ms(200), 2.0, ms(30_000)).within(ms(3_600_000));
    assert_eq!(decoded(growing), Ok(expected));
    let schema = crate::schema::advertised::<Retry>();
    assert_eq!(schema["properties"]["steps"]["items"]["format"], "span", "{schema:#}");
    assert_ne!(crate::schema::fingerprint(&schema), Fingerprint::NONE);
}

#[test]
fn improbable_values_from_outside_are_refused() {
    for (json, error) in [
        (json!({ "steps": vec!["1s"; 65] }), "has 65 steps: at most 64"),
        (json!({ "steps": ["1s", "31d"] }), "waits for 31d: at most 30d"),
        (json!({ "every": "0s" }), "every 0s does nothing else: at least 1ms"),
        (json!({ "every": "1s", "factor": 0.5 }), "the factor 0.5: it must be 1 or more"),
        (json!({ "factor": 2.0 }), "need `every`"),
        (json!({ "max": "1s" }), "need `every`"),
        (json!({ "every": "2s", "factor": 2, "max": "1s" }), "wait 1s of a retry schedule is less"),
        (json!({ "limit": 0 }), "with 0 attempts never tries"),
        (json!({ "jitter": 1.5 }), "a jitter of 1.5 is no share"),
        (json!({ "jitter": -0.5 }), "a jitter of -0.5 is no share"),
        (json!({ "every": "1" }), "`1` has no unit"),
    ] {
        let refused = decoded(json.clone()).expect_err("refused");
        assert!(refused.contains(error), "{json}: {refused}");
    }
}

proptest! {
    #[test]
    fn a_schedule_survives_its_encoding(
        steps in proptest::collection::vec(0u64..10_000_000, 0..5),
        every in proptest::option::of(1u64..10_000_000),
        factor in prop_oneof![Just(1000), 1000..10_000u16],
        max in 1u64..100_000_000,
        limit in proptest::option::of(1u32..),
        jitter in 0..=1000u16,
        within in proptest::option::of(0u64..),
        draws in proptest::collection::vec(0.0..1.0f64, 8),
    ) {
        // Short ones: JSON keeps them to the last bit.
        let (factor, jitter) = (f64::from(factor) / 1000.0, f64::from(jitter) / 1000.0);
        let mut retry = Retry::steps(steps.into_iter().map(ms)).jitter(jitter);
        if let Some(every) = every {
            retry.regular = Retry::exponential(ms(every), factor, ms(max)).regular;
        }
        retry.limit = limit;
        retry.within = within.map(Duration::from_micros);
        let text = serde_json::to_string(&retry).expect("encodes");
        let back: Retry = serde_json::from_str(&text).expect("decodes");
        // `max` matters only where the wait grows.
        for (n, draw) in draws.iter().enumerate() {
            prop_assert_eq!(back.delay(n as u32, *draw), retry.delay(n as u32, *draw));
        }
        prop_assert_eq!(back.within, retry.within);
        // What the iterator gives never adds up to more than it may.
        let mut numbers = draws.into_iter().cycle();
        let all: Vec<_> = retry.delays(|| numbers.next().unwrap_or(0.5)).take(50).collect();
        prop_assert!(all.iter().all(|wait| *wait <= 2 * MAX_DELAY));
        if let Some(within) = retry.within {
            prop_assert!(all.iter().sum::<Duration>() <= within);
        }
        if let Some(limit) = retry.limit {
            prop_assert!(all.len() < limit as usize);
        }
    }
}

#[tokio::test]
async fn it_is_tried_until_it_succeeds() {
    let retry = Retry::steps([ms(0), ms(1)]).then_every(ms(1));
    let done: Result<u32, String> = retry
        .run(|attempt| async move {
            if attempt < 5 { Err(format!("attempt {attempt}")) } else { Ok(attempt) }
        })
        .await;
    assert_eq!(done, Ok(5));
}

#[tokio::test]
async fn the_last_error_is_returned_at_the_end() {
    let retry = Retry::steps([]).then_every(ms(1)).limit(3).jitter(1.0);
    let failed: Result<(), u32> = retry.run(|attempt| async move { Err(attempt) }).await;
    assert_eq!(failed, Err(3));
    let once: Result<(), u32> = Retry::never().run(|attempt| async move { Err(attempt) }).await;
    assert_eq!(once, Err(1));
}

#[tokio::test]
async fn an_error_that_will_not_go_away_ends_it() {
    let retry = Retry::steps([]).then_every(ms(1));
    let attempts = |attempt| async move { Err::<(), _>(attempt) };
    assert_eq!(retry.run_if(attempts, |error| *error < 4).await, Err(4));
}

#[tokio::test]
async fn it_never_waits_past_the_end() {
    // The day-long second wait would: what took so long is the caller's, not ours.
    let retry = Retry::steps([ms(1)]).then_every(MAX_DELAY).within(Duration::from_secs(3600));
    let failed = tokio::time::timeout(
        Duration::from_secs(30),
        retry.run(|attempt| async move { Err::<(), _>(attempt) }),
    );
    assert_eq!(failed.await.expect("at once"), Err(2));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_the_attempts_counts() {
    let retry = Retry::steps([ms(5); 8]).within(ms(20));
    let slow = |attempt| async move {
        tokio::time::advance(ms(20)).await;
        Err::<(), _>(attempt)
    };
    assert_eq!(retry.run(slow).await, Err(1));
}

#[tokio::test]
async fn a_dropped_run_does_nothing_more() {
    let tried = Cell::new(0);
    let retry = Retry::steps([]).then_every(MAX_DELAY);
    let run = retry.run(|attempt| {
        tried.set(attempt);
        async { Err::<(), ()>(()) }
    });
    // Ended while it waits for the second attempt.
    assert!(tokio::time::timeout(ms(10), run).await.is_err());
    assert_eq!(tried.get(), 1);
}

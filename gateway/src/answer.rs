//! From the outcome of a call to what the client is told: the one table of causes and statuses.

use bytes::Bytes;
use layercake_node::AskError;
use layercake_wire::payload::{Encoding, Payload};

use crate::problem::{Kind, Problem, clip};

/// The JSON of a reply, untouched.
pub(crate) fn reply(outcome: Result<Payload, AskError>) -> Result<Bytes, Problem> {
    match outcome {
        Ok(payload) if payload.encoding == Encoding::Json => Ok(payload.bytes),
        Ok(payload) => Err(problem(&AskError::BadReply {
            reason: format!("it came as {:?}, not as JSON", payload.encoding),
        })),
        Err(error) => Err(problem(&error)),
    }
}

/// The problem that a failed ask is to the client of the gateway.
pub(crate) fn problem(error: &AskError) -> Problem {
    let (kind, detail) = match error {
        AskError::Busy { .. } => (Kind::Busy, error.to_string()),
        AskError::Overloaded { .. } => (Kind::Overloaded, error.to_string()),
        AskError::Unavailable => (Kind::Unavailable, error.to_string()),
        AskError::Stopped { .. } | AskError::Unreachable { .. } | AskError::NotHandled { .. } => {
            (Kind::Unavailable, "nobody who answers this message can be reached".to_owned())
        }
        AskError::Deadline => (
            Kind::Deadline,
            "no answer within the deadline; the request may have been carried out".to_owned(),
        ),
        AskError::NotNow { .. } => {
            (Kind::Conflict, "the service does not take this in its present state".to_owned())
        }
        AskError::Lost { .. } => (
            Kind::WorkerLost,
            "the worker was lost; the request may have been carried out".to_owned(),
        ),
        AskError::Panicked => (
            Kind::WorkerFailed,
            "the worker failed; the request may have been carried out in part".to_owned(),
        ),
        AskError::NoReply | AskError::BadReply { .. } => {
            (Kind::NoReply, "the request was carried out, but gave no usable reply".to_owned())
        }
        AskError::Malformed { reason } => (Kind::NotUnderstood, reason.clone()),
        AskError::Unsendable { .. } => {
            (Kind::TooLarge, "the message is larger than a message may be".to_owned())
        }
        _ => (Kind::Internal, "the request could not be handled".to_owned()),
    };
    let mut problem = Problem::new(kind, detail);
    clip(&mut problem.detail);
    problem.may_have_run = error.may_have_run();
    problem.cause = Some(error.to_string().into_boxed_str());
    problem.retry_after = error.retry_after();
    problem
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_cause_has_its_status() {
        let table = [
            (AskError::Unavailable, 503, Some(1)),
            (
                AskError::Busy {
                    mean: Duration::from_secs(2),
                    retry_after: Duration::from_millis(2_500),
                },
                503,
                Some(3),
            ),
            (
                AskError::Overloaded { pending: 9, retry_after: Duration::from_millis(1) },
                503,
                Some(1),
            ),
            (AskError::Deadline, 504, None),
            (AskError::Panicked, 502, None),
            (AskError::NoReply, 502, None),
            (AskError::BadReply { reason: "?".into() }, 502, None),
            (AskError::Malformed { reason: "missing field `x`".into() }, 400, None),
            (AskError::Unsendable { reason: "too large".into() }, 413, None),
        ];
        for (error, status, retry_after) in table {
            let told = problem(&error);
            assert_eq!(told.kind.status().as_u16(), status, "{error}");
            assert_eq!(told.may_have_run, error.may_have_run(), "{error}");
            let response = told.into_response(None);
            let header = response.headers().get("retry-after").map(|v| v.to_str().unwrap());
            assert_eq!(header, retry_after.map(|s: u64| s.to_string()).as_deref(), "{error}");
        }
    }

    #[test]
    fn a_reply_that_is_not_json_is_not_passed_on() {
        let tag = layercake_wire::payload::Tag::of("Xy");
        let bytes = Bytes::from_static(&[1, 2]);
        let told = reply(Ok(Payload { tag, encoding: Encoding::Bincode, bytes }));
        assert_eq!(told.map_err(|p| p.kind), Err(Kind::NoReply));
    }
}

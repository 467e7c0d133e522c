use layercake_wire::payload::Fingerprint;
use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(Span::duration).map_err(|e| e.to_string())
}

fn shown(duration: Duration) -> String {
    Span(duration).to_string()
}

#[test]
fn the_forms_that_people_write_are_read() {
    for (text, nanos) in [
        ("250ms", 250_000_000),
        ("2.5s", 2_500_000_000),
        ("1m30s", 90_000_000_000),
        ("1h", 3_600_000_000_000),
        ("7d10s", 604_810_000_000_000),
        ("1d2h3m4s5ms6us7ns", 93_784_005_006_007),
        ("0.5h", 1_800_000_000_000),
        ("1h0.5m", 3_630_000_000_000),
        ("1.5us", 1_500),
        ("3µs", 3_000),
        ("3μs", 3_000),
        (" 5s ", 5_000_000_000),
        ("0", 0),
        ("0s", 0),
        ("0.000000001s", 1),
        ("0.1000000000000000000000000s", 100_000_000),
        ("007s", 7_000_000_000),
    ] {
        assert_eq!(read(text), Ok(Duration::from_nanos(nanos)), "{text}");
    }
}

#[test]
fn spans_are_shown_short_and_exact() {
    for (nanos, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5us"),
        (250_000_000, "250ms"),
        (250_000_001, "250.000001ms"),
        (1_000_000_000, "1s"),
        (2_500_000_000, "2.5s"),
        (60_000_000_000, "1m"),
        (60_250_000_000, "1m0.25s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_001, "1h0.000000001s"),
        (604_810_000_000_000, "7d10s"),
    ] {
        assert_eq!(shown(Duration::from_nanos(nanos)), text);
    }
    assert_eq!(shown(Duration::MAX), "213503982334601d7h15.999999999s");
    assert_eq!(format!("[{:>6}]", Span::from_secs(60)), "[    1m]");
    assert_eq!(format!("{:?}", Span::from_secs(60)), "1m");
}

#[test]
fn what_is_wrong_with_a_span_is_said() {
    for (text, error) in [
        ("", "a time span is empty: write for example 250ms"),
        ("  ", "a time span is empty: write for example 250ms"),
        ("soon", "`soon` is no time span: write for example 250ms, 2.5s or 1m30s"),
        ("+5s", "`+5s` is no time span: write for example 250ms, 2.5s or 1m30s"),
        (".5s", "`.5s` is no time span: write for example 250ms, 2.5s or 1m30s"),
        ("5.s", "`5.s` is no time span: write for example 250ms, 2.5s or 1m30s"),
        ("1.2.3s", "`1.2.3s` is no time span: write for example 250ms, 2.5s or 1m30s"),
        ("5", "`5` has no unit: write 5s for seconds, or one of d, h, m, s, ms, us, ns"),
        ("1m30", "`30` has no unit: write 30s for seconds, or one of d, h, m, s, ms, us, ns"),
        ("5 parsecs", "` parsecs` is no unit of time: there are d, h, m, s, ms, us, ns"),
        ("5S", "`S` is no unit of time: there are d, h, m, s, ms, us, ns"),
        ("30s1m", "`1m` comes too late: write larger units first, each once, as in 1h30m"),
        ("1s1s", "`1s` comes too late: write larger units first, each once, as in 1h30m"),
        ("1.5h30m", "`1.5h` has a fraction and is not the last part: write for example 1h30m"),
        ("0.1ns", "`0.1ns` is finer than a nanosecond"),
        ("0.3333333333333333333333s", "`0.3333333333333333333333…` is finer than a nanosecond"),
        ("99999999999999999999s", "`99999999999999999999s` is longer than a time span can be"),
        ("18446744073709551615d", "`18446744073709551615d` is longer than a time span can be"),
        ("-5s", "`-5s` is negative: a time span is not"),
    ] {
        assert_eq!(read(text), Err(error.to_owned()), "{text}");
    }
    assert!(read(&"9".repeat(10_000)).expect_err("refused").len() < 200);
    assert!(read(&"1ä".repeat(10_000)).expect_err("refused").len() < 200);
}

#[test]
fn it_is_text_in_every_encoding() {
    let span = Span::from_millis(1500);
    assert_eq!(serde_json::to_value(span).expect("encodes"), "1.5s");
    assert_eq!(serde_json::from_str::<Span>("\"1.5s\"").expect("decodes"), span);
    let error = serde_json::from_str::<Span>("1.5").expect_err("a number").to_string();
    assert!(error.contains("a time span such as 250ms"), "{error}");
    let error = serde_json::from_str::<Span>("\"1.5\"").expect_err("no unit").to_string();
    assert!(error.contains("`1.5` has no unit"), "{error}");

    let schema = crate::schema::advertised::<Span>();
    assert_eq!((&schema["type"], &schema["format"]), (&"string".into(), &"span".into()));
    // Compactly too: the same bytes as its text.
    assert_ne!(crate::schema::fingerprint(&schema), Fingerprint::NONE);
}

proptest! {
    #[test]
    fn what_is_shown_is_read_back(secs: u64, nanos in 0..1_000_000_000u32, small: bool) {
        let secs = if small { secs % 100_000 } else { secs };
        let duration = Duration::new(secs, nanos);
        prop_assert_eq!(read(&shown(duration)), Ok(duration));
        let short = Duration::from_nanos(u64::from(nanos) >> (secs % 31));
        prop_assert_eq!(read(&shown(short)), Ok(short));
    }

    #[test]
    fn no_text_is_too_odd(text in "\\PC{0,40}", like in "[0-9.]{0,5}[a-zµ]{0,3}[0-9.]{0,25}[dhms]{0,2}") {
        for text in [text, like] {
            if let Ok(duration) = read(&text) {
                prop_assert_eq!(read(&shown(duration)), Ok(duration));
            }
        }
    }
}

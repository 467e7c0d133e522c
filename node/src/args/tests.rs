use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Span, check::MAX_PROBLEMS, retry::Retry};

mod layercake {
    pub(super) use layercake_macros::data;
}

/// Makes textures.
///
/// As many as
/// you like.
#[layercake::data]
#[derive(Debug, Clone, PartialEq)]
struct Texture {
    /// How many columns.
    x: u32,
    /// How many rows.
    #[arg(default = 8, min = 1, max = 1000)]
    y: u32,
    /// Say more.
    #[arg(default = false)]
    long_listing: bool,
    /// Colours.
    #[arg(default = true)]
    colour: bool,
    #[arg(default = "plain")]
    style: String,
}

#[layercake::data]
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scope {
    Process,
    Host,
    WholeLan,
}

#[layercake::data]
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Point,
    Square { side: u8 },
    Label(String),
}

#[layercake::data]
#[derive(Debug, Clone, PartialEq)]
struct HostPort {
    host: IpAddr,
    port: u16,
}

#[layercake::data]
#[derive(Debug, Clone, PartialEq, Default)]
struct Many {
    flag: Option<bool>,
    ratio: Option<f64>,
    small: Option<i8>,
    big: Option<u64>,
    title: Option<String>,
    letter: Option<char>,
    scope: Option<Scope>,
    shape: Option<Shape>,
    every: Option<Span>,
    grace: Option<Duration>,
    #[arg(default)]
    tags: Vec<String>,
    #[arg(default)]
    numbers: Vec<u8>,
    #[arg(default)]
    waits: Vec<Duration>,
    #[arg(default)]
    table: Vec<Vec<f64>>,
    address: Option<HostPort>,
    listen: Option<SocketAddr>,
    #[arg(default)]
    by_name: BTreeMap<String, Duration>,
    pair: Option<(u8, String)>,
    anything: Option<Value>,
    retry: Option<Retry>,
}

/// One argument, as JSON.
fn many(words: &[&str]) -> Value {
    let many: Many = read(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let checked = read_value(schema::<Many>(), words).expect("read before");
    let object = checked.as_object().expect("an object");
    assert_eq!(object.len(), 1, "{words:?}");
    let (name, value) = object.iter().next().expect("one");
    // serde agrees on what it means.
    let whole = serde_json::to_value(many).expect("encodes");
    if !value.is_f64() && value.is_number() {
        assert_eq!(whole[name].as_f64(), value.as_f64());
    }
    whole[name].clone()
}

fn refused<T: Data>(words: &[&str]) -> Vec<String> {
    let error = read::<T>(words).err().expect("refused");
    error.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_command_line_becomes_a_struct() {
    let plain =
        Texture { x: 2, y: 8, long_listing: false, colour: true, style: "plain".to_owned() };
    assert_eq!(read(["--x=2"]), Ok(plain.clone()));
    assert_eq!(read(["--x", "2"]), Ok(plain.clone()));
    assert_eq!(read(["-x=2"]), Ok(plain.clone()));
    assert_eq!(read(vec!["-x".to_owned(), "2".to_owned()]), Ok(plain.clone()));
    let listing = Texture { long_listing: true, colour: false, ..plain.clone() };
    for words in [
        ["--long-listing", "--no-colour"],
        ["--long_listing", "--no_colour"],
        ["-ll", "-c=false"],
        ["--long-listing=true", "--colour=false"],
        ["--no-colour", "-ll=true"],
    ] {
        let words = words.into_iter().chain(["--x=2"]);
        assert_eq!(read(words), Ok(listing.clone()));
    }
    // A text is taken as it stands, also where it looks like something else.
    for style in ["", "5", "null", "true", "\"a\"", "a=b", "[1", "-x", "--x=3", "ä b\n"] {
        let expected = Texture { style: style.to_owned(), ..plain.clone() };
        assert_eq!(read(["-x=2", &format!("--style={style}")]), Ok(expected));
    }
    let dashed = Texture { style: "-".to_owned(), ..plain };
    assert_eq!(read(["-x=2", "--style", "-"]), Ok(dashed));
}

#[test]
fn each_declared_type_has_its_form() {
    for (word, value) in [
        ("--flag", json!(true)),
        ("--no-flag", json!(false)),
        ("--flag=null", json!(null)),
        ("--ratio=5", json!(5.0)),
        ("--ratio=-2.5e3", json!(-2500.0)),
        ("--small=-128", json!(-128)),
        ("--big=18446744073709551615", json!(u64::MAX)),
        ("--title=12", json!("12")),
        ("--title=", json!("")),
        ("--title=null", json!(null)),
        ("--title=\"null\"", json!("null")),
        ("--title=\"half", json!("\"half")),
        ("--letter=ä", json!("ä")),
        ("--letter=7", json!("7")),
        ("--scope=Host", json!("Host")),
        ("--scope=host", json!("Host")),
        ("--scope=whole-lan", json!("WholeLan")),
        ("--scope=WHOLE_LAN", json!("WholeLan")),
        ("--shape=Point", json!("Point")),
        ("--shape=point", json!("Point")),
        ("--shape={\"Square\":{\"side\":3}}", json!({ "Square": { "side": 3 } })),
        ("--every=1m30s", json!("1m30s")),
        ("--grace=7d10s", json!({ "secs": 604_810, "nanos": 0 })),
        ("--grace=2.5s", json!({ "secs": 2, "nanos": 500_000_000 })),
        ("--grace={\"secs\":1,\"nanos\":5}", json!({ "secs": 1, "nanos": 5 })),
        ("--tags=a", json!(["a"])),
        ("--tags=[\"a\",\"b\"]", json!(["a", "b"])),
        ("--tags=[]", json!([])),
        ("--numbers=7", json!([7])),
        ("--waits=1s", json!([{ "secs": 1, "nanos": 0 }])),
        ("--waits=[\"1s\",\"5ns\"]", json!([{ "secs": 1, "nanos": 0 }, { "secs": 0, "nanos": 5 }])),
        ("--table=[[1,2.5]]", json!([[1.0, 2.5]])),
        (
            "--address={\"host\":\"127.0.0.1\",\"port\":5050}",
            json!({ "host": "127.0.0.1", "port": 5050 }),
        ),
        ("--listen=127.0.0.1:0", json!("127.0.0.1:0")),
        ("--by-name={\"a\":\"1h\"}", json!({ "a": { "secs": 3600, "nanos": 0 } })),
        ("--pair=[1,\"b\"]", json!([1, "b"])),
        ("--anything={\"a\":[null]}", json!({ "a": [null] })),
        ("--anything=5", json!(5)),
        ("--anything=\"5\"", json!("5")),
        ("--anything=some text", json!("some text")),
    ] {
        assert_eq!(many(&[word]), value, "{word}");
    }
    assert_eq!(many(&["--small", "-5"]), json!(-5));
    assert_eq!(many(&["--ratio", "-.5"]), json!(-0.5));
    assert_eq!(
        many(&["--tags=a", "--tags=[\"b\",\"c\"]", "--tags=5"]),
        json!(["a", "b", "c", "5"])
    );
    assert_eq!(many(&["--numbers", "1", "--numbers", "2"]), json!([1, 2]));
    let retry = many(&["--retry={\"steps\":[\"0s\",\"1.5s\"],\"every\":\"1m\",\"limit\":5}"]);
    assert_eq!((&retry["steps"][1], &retry["limit"]), (&json!("1.5s"), &json!(5)));
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_the_command_line() {
    for (words, error) in [
        (&["--x=abc"][..], "`--x` `abc` is not a whole number: write --x=INTEGER"),
        (&["-x=abc"], "`-x` `abc` is not a whole number: write --x=INTEGER"),
        (&["--x="], "`--x` has an empty value: write --x=INTEGER"),
        (&["--x=2.0"], "`--x` `2.0` is not a whole number: write --x=INTEGER"),
        (&["--x=99999999999"], "`--x` is more than 4294967295: write --x=INTEGER"),
        (&["--x=-1"], "`--x` is less than 0: write --x=INTEGER"),
        (&["--x"], "`--x` has no value: write --x=INTEGER"),
        (&["--x", "--style=a"], "`--x` has no value: write --x=INTEGER"),
        (&["-x=2", "-y=1001"], "`-y` is more than 1000: write --y=INTEGER"),
        (&[], "`--x` is required: write --x=INTEGER"),
        (&["--x=1", "--x=2"], "`--x` is given 2 times: write --x=INTEGER"),
        (&["--x=1", "-x=1"], "`--x` is given as `-x` too: write --x=INTEGER"),
        (
            &["-x=1", "-ll", "--no-long-listing"],
            "`-ll` is given as `--no-long-listing` too: write --long-listing",
        ),
        (
            &["-x=1", "--no-colour=true"],
            "`--no-colour` takes no value: write --no-colour, or --colour=false",
        ),
        (&["-x=1", "--colour=yes"], "`--colour` `yes` is not true or false: write --no-colour"),
        (
            &["-x=1", "--colour", "false"],
            "`false` stands alone, and arguments have names: write --colour=false",
        ),
        (&["-x=1", "stray"], "`stray` stands alone, and arguments have names: write --name=value"),
        (
            &["-x=1", "--", "a", "b"],
            "`--` is not used: there are no arguments without a name: write all of them as --name=value",
        ),
        (
            &["-x=1", "--stile=a"],
            "`--stile` is unknown, there are --x, --y, --long-listing, --colour and --style: did you mean --style?",
        ),
        (
            &["-x=1", "--ll"],
            "`--ll` is unknown, there are --x, --y, --long-listing, --colour and --style: write -ll or --long-listing",
        ),
        (
            &["-x=1", "-style=a"],
            "`-style` is unknown, there are --x, --y, --long-listing, --colour and --style: write --style",
        ),
        (
            &["-x=1", "--no-style"],
            "`--no-style` is unknown, there are --x, --y, --long-listing, --colour and --style",
        ),
        (
            &["-x=1", "-5"],
            "`-5` is unknown, there are --x, --y, --long-listing, --colour and --style",
        ),
    ] {
        assert_eq!(refused::<Texture>(words), [error], "{words:?}");
    }
    for (word, error) in [
        ("--ratio=inf", "`--ratio` `inf` is not a number: write --ratio=NUMBER"),
        (
            "--scope=Hots",
            "`--scope` is none of Process, Host, WholeLan: write --scope=Process|Host|WholeLan",
        ),
        (
            "--every=5",
            "`--every` is no time span, `5` has no unit: write 5s for seconds, or one of d, h, m, s, ms, us, ns: write --every=SPAN",
        ),
        (
            "--grace=1x",
            "`--grace` is no time span, `x` is no unit of time: there are d, h, m, s, ms, us, ns: write --grace=SPAN",
        ),
        ("--numbers=[1,256]", "`--numbers` at `1` is more than 255: write --numbers=INTEGER"),
        (
            "--address=5",
            "`--address` `5` is not a JSON object: write --address={\"host\":TEXT,\"port\":INTEGER}",
        ),
        (
            "--address={\"host\":\"::1\"}",
            "`--address` at `port` is required: write --address={\"host\":TEXT,\"port\":INTEGER}",
        ),
        ("--pair=5", "`--pair` `5` is not a JSON array: write --pair=[INTEGER,TEXT]"),
        ("--table=5", "`--table` `5` is not a JSON array: write --table=[NUMBER,…]"),
        (
            "--table=[[1,\"a\"]]",
            "`--table` at `0/1` is a text, not a number: write --table=[NUMBER,…]",
        ),
        ("--letter=ab", "`--letter` has more than 1 character(s): write --letter=TEXT"),
    ] {
        let said = refused::<Many>(&[word]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0], error);
    }
    let cut = &refused::<Many>(&["--address={\"host\""])[0];
    assert!(cut.starts_with("`--address` `{\"host\"` is not JSON: EOF while"), "{cut}");
    assert_eq!(refused::<Many>(&["--pair=[1,\"a\"]", "--pair=[1,\"a\"]"]).len(), 1);
    // What only the type itself knows.
    let own = &refused::<Many>(&["--listen=nowhere"])[0];
    assert!(own.starts_with("the arguments do not fit: invalid socket address"), "{own}");
    let own = &refused::<Many>(&["--retry={\"limit\":0}"])[0];
    assert!(own.contains("with 0 attempts never tries"), "{own}");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let error = read::<Texture>(["--why=1", "--y=0", "--z", "5", "stray"]).expect_err("refused");
    let text = error.to_string();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "5 things are wrong with the arguments",
            "  `--why` is unknown, there are --x, --y, --long-listing, --colour and --style",
            "  `--z` is unknown, there are --x, --y, --long-listing, --colour and --style",
            "  `stray` stands alone, and arguments have names: write --name=value",
            "  `--y` is less than 1: write --y=INTEGER",
            "  `--x` is required: write --x=INTEGER",
        ]
    );
    let words: Vec<_> = (0..100).map(|n| format!("--z{n}=\u{1b}[2J{}", "z".repeat(500))).collect();
    let error = read::<Texture>(&words).expect_err("refused");
    assert_eq!(error.problems().len(), MAX_PROBLEMS);
    assert!(error.to_string().lines().all(|line| line.len() < 300 && !line.contains('\u{1b}')));
}

#[test]
fn an_ambiguous_short_form_names_the_candidates() {
    #[layercake::data]
    #[derive(Debug)]
    struct Listing {
        #[arg(default = false)]
        long_listing: bool,
        #[arg(default = 3)]
        last_lines: u8,
        #[arg(default = 3)]
        l: u8,
    }
    assert_eq!(
        refused::<Listing>(&["-ll"]),
        ["`-ll` may be --long-listing or --last-lines: write it with two dashes"]
    );
    assert_eq!(read::<Listing>(["-l=5"]).expect("one of its own").l, 5);
    let help = help::<Listing>("list");
    assert!(help.contains("  -l, --l=INTEGER") && !help.contains("-ll"), "{help}");
}

#[test]
fn odd_names_can_be_typed_too() {
    #[layercake::data]
    #[derive(Debug, PartialEq)]
    struct Odd {
        #[arg(default = false)]
        flag: bool,
        #[arg(default = false)]
        no_flag: bool,
        #[arg(default = 0)]
        #[serde(rename = "a-b")]
        dashed: u8,
        #[arg(default = 0)]
        a_b: u8,
        #[arg(default = 0)]
        #[serde(rename = "camelCase")]
        camel: u8,
        #[arg(default = 0)]
        r#type: u8,
    }
    let odd = |words: &[&str]| read::<Odd>(words).expect("understood");
    assert!(odd(&["--no-flag"]).no_flag && !odd(&["--no-flag"]).flag);
    assert_eq!((odd(&["--a-b=1"]).dashed, odd(&["--a_b=1"]).a_b), (1, 1));
    assert_eq!((odd(&["--camelCase=1"]).camel, odd(&["-cc=1"]).camel), (1, 1));
    assert_eq!(odd(&["--type=1"]).r#type, 1);
    let all = Odd { flag: true, no_flag: true, dashed: 1, a_b: 2, camel: 3, r#type: 4 };
    let words = write(&all).expect("written");
    assert_eq!(words, ["--flag", "--no-flag", "--a-b=1", "--a_b=2", "--camelCase=3", "--type=4"]);
    assert_eq!(read(&words), Ok(all));
}

#[test]
fn what_cannot_be_arguments_is_told_so() {
    #[layercake::data]
    #[derive(Debug)]
    struct Taken {
        #[arg(default = false)]
        json: bool,
    }
    let taken = "`--json` is a word of every program and cannot be an argument of one: rename the field `json`";
    assert_eq!(refused::<Taken>(&[]), [taken]);
    assert!(help::<Taken>("taken").contains("rename the field `json`"));
    assert!(write(&Taken { json: true }).is_err());
    let not_named = "the arguments of a program must be a struct with named fields";
    assert_eq!(refused::<Scope>(&[]), [not_named]);
    assert_eq!(refused::<u8>(&["5"]), [not_named]);
    assert_eq!(refused::<Vec<u8>>(&[]), [not_named]);
}

#[test]
fn a_program_may_have_no_arguments() {
    /// Does one thing.
    #[layercake::data]
    #[derive(Debug, PartialEq)]
    struct Nothing {}
    assert_eq!(read::<Nothing>([""; 0]), Ok(Nothing {}));
    assert_eq!(refused::<Nothing>(&["--x=1"]), ["`--x` is unknown, since there are no arguments"]);
    assert_eq!(help::<Nothing>("do-it"), "usage: do-it\n\nDoes one thing.\n");
}

#[test]
fn help_says_what_may_be_typed() {
    let expected = "\
usage: texture --x=INTEGER [--y=INTEGER] [--long-listing] [--no-colour] [--style=TEXT]

Makes textures.

As many as you like.

Arguments:
  -x,  --x=INTEGER     How many columns. (required)
  -y,  --y=INTEGER     How many rows. (default 8; 1 to 1000)
  -ll, --long-listing  Say more.
  -c,  --no-colour     Colours.
  -s,  --style=TEXT    (default plain)
";
    assert_eq!(help::<Texture>("texture"), expected);
    let many = help::<Many>("many");
    assert!(many.lines().all(|line| line.chars().count() <= 100), "{many}");
    for part in [
        "[--[no-]flag] ",
        "[--scope=Process|Host|WholeLan]",
        "--shape=Point|",
        "--every=SPAN",
        "A time span such as 250ms",
        "--waits=SPAN",
        "(default []; may be repeated)",
        "--address={\"host\":TEXT,\"port\":INTEGER}",
        "--anything=JSON",
    ] {
        assert!(many.contains(part), "{part} in\n{many}");
    }
}

#[test]
fn help_is_never_wider_than_a_terminal() {
    let long = "wide ".repeat(200) + &"w".repeat(500) + "\u{1b}[31m\u{202e}";
    let members: serde_json::Map<_, _> = [
        ("n".repeat(300), json!({ "type": "integer", "description": long, "default": 5 })),
        ("short".to_owned(), json!({ "enum": vec!["name"; 100], "description": long })),
        ("other\u{1b}".to_owned(), json!({ "type": "string", "default": long })),
    ]
    .into_iter()
    .collect();
    let schema = json!({ "type": "object", "description": long, "properties": members });
    let help = help_of(&schema, &long);
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line}");
    }
    assert!(
        help.contains("(default 5)") || help.contains("(default\n") || help.contains("default 5")
    );
}

#[test]
fn what_differs_from_the_defaults_is_written() {
    let texture =
        Texture { x: 2, y: 8, long_listing: true, colour: false, style: "a b".to_owned() };
    let words = write(&texture).expect("written");
    assert_eq!(words, ["--x=2", "--long-listing", "--no-colour", "--style=a b"]);
    let many = Many {
        title: Some("null".to_owned()),
        scope: Some(Scope::Host),
        grace: Some(Duration::from_millis(1500)),
        every: Some(Span::from_secs(90)),
        tags: vec!["a".to_owned(), "5".to_owned()],
        waits: vec![Duration::from_secs(1)],
        shape: Some(Shape::Label("x".to_owned())),
        ..Many::default()
    };
    assert_eq!(
        write(&many).expect("written"),
        [
            "--title=\"null\"",
            "--scope=Host",
            "--shape={\"Label\":\"x\"}",
            "--every=1m30s",
            "--grace=1.5s",
            "--tags=a",
            "--tags=5",
            "--waits=1s",
        ]
    );
    // What is not declared is not lost in silence.
    let words = words_of(json!({ "x": 1, "zz": 5 }));
    assert_eq!(words, ["--x=1", "--zz=5"]);
    assert!(read::<Texture>(&words).is_err());
    assert!(words_of(json!([1])).is_empty());
}

fn words_of(value: Value) -> Vec<String> {
    words(schema::<Texture>(), &value)
}

#[test]
fn a_hostile_schema_neither_panics_nor_takes_forever() {
    let doubling = json!({
        "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } },
        "properties": { "x": { "$ref": "#/$defs/a" }, "y": { "items": { "$ref": "#/$defs/a" } } }
    });
    let nest = (0..100).fold(json!({}), |inner, _| json!({ "type": "array", "items": inner }));
    for odd in [
        doubling,
        json!(null),
        json!(7),
        json!({ "$ref": "#" }),
        json!({ "properties": { "x": nest } }),
        json!({ "properties": { "x": true, "": false, "-": 7, "_": null, "=": {}, "no_": {} } }),
        json!({ "type": 7, "required": "x", "properties": { "x": { "type": 7, "enum": 7 } } }),
        json!({ "properties": { "x": { "minimum": "a", "format": "uint999", "type": "integer" } } }),
        json!({ "properties": { "x": { "format": "int0", "type": "integer", "minimum": 1 } } }),
        json!({ "properties": { "x": { "properties": { "secs": 7, "nanos": [] } } } }),
        json!({ "properties": { "x": { "type": ["array", "object"], "items": 7, "prefixItems": {} } } }),
        json!({ "properties": { "x": { "type": "array", "items": { "type": "array" } } } }),
    ] {
        let _ = help_of(&odd, "odd");
        for word in
            ["-x=1", "--x=[[1]]", "--x={\"x\":1}", "--x", "-", "--=", "-=", "", "--no-", "--no-x"]
        {
            let _ = read_value(&odd, [word, word]);
            let _ = read_value(&odd, [word]);
        }
        for value in [json!({ "x": 1 }), json!({ "x": ["a"], "": 1 }), json!([{}]), json!(null)] {
            let _ = words(&odd, &value);
        }
    }
}

prop_compose! {
    fn duration()(secs in 0u64..1 << 40, nanos in 0..1_000_000_000u32) -> Duration {
        Duration::new(secs, nanos)
    }
}

fn texts() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "", "null", "\"null\"", "true", "5", "-1", "[", "[\"a\"]", "{}", "--x=1", "=", "\"", "1s",
    ];
    prop_oneof![proptest::sample::select(ODD).prop_map(str::to_owned), "\\PC{0,8}", any::<String>()]
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Numbers that JSON keeps to the last bit.
fn halves() -> impl Strategy<Value = f64> {
    any::<i32>().prop_map(|n| f64::from(n) / 2.0)
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("JSON has no others", |n| n.is_finite())
}

fn manies() -> impl Strategy<Value = Many> {
    use proptest::{collection::vec, option::of, sample::select};
    let scopes = select(vec![Scope::Process, Scope::Host, Scope::WholeLan]);
    let shapes = prop_oneof![
        Just(Shape::Point),
        any::<u8>().prop_map(|side| Shape::Square { side }),
        texts().prop_map(Shape::Label),
    ];
    let first = (
        of(any::<bool>()),
        of(finite()),
        of(any::<i8>()),
        of(any::<u64>()),
        of(texts()),
        of(any::<char>()),
        of(scopes),
        of(shapes),
    );
    let second = (
        of(duration().prop_map(Span::new)),
        of(duration()),
        vec(texts(), 0..4),
        vec(any::<u8>(), 0..4),
        vec(duration(), 0..3),
        vec(vec(halves(), 0..3), 0..3),
        of((any::<IpAddr>(), any::<u16>()).prop_map(|(host, port)| HostPort { host, port })),
        proptest::collection::btree_map(texts(), duration(), 0..3),
    );
    let third = (of((any::<u8>(), texts())), of(json_values()), of(any::<u16>()));
    (first, second, third).prop_map(|(first, second, third)| {
        let (flag, ratio, small, big, title, letter, scope, shape) = first;
        let (every, grace, tags, numbers, waits, table, address, by_name) = second;
        let (pair, anything, limit) = third;
        // An optional JSON value that is null is none.
        let anything = anything.filter(|value| !value.is_null());
        let listen = address.as_ref().map(|to: &HostPort| (to.host, to.port).into());
        let retry = limit.map(|n| Retry::steps([Duration::from_micros(n.into())]).limit(n.into()));
        Many {
            flag,
            ratio,
            small,
            big,
            title,
            letter,
            scope,
            shape,
            every,
            grace,
            tags,
            numbers,
            waits,
            table,
            address,
            listen,
            by_name,
            pair,
            anything,
            retry,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_value_survives_its_command_line(many in manies()) {
        let words = write(&many).expect("written");
        let back = read::<Many>(&words);
        prop_assert_eq!(back.map_err(|e| e.to_string()), Ok(many), "{:?}", words);
    }

    #[test]
    fn no_command_line_is_too_odd(
        words in proptest::collection::vec(
            prop_oneof![
                texts(),
                ("-{0,2}(no-|NO_)?(x|flag|tags|scope|numbers|ratio|every|waits|t|f|s)", "=?", texts())
                    .prop_map(|(name, is, text)| format!("{name}{is}{text}")),
            ],
            0..6,
        )
    ) {
        if let Err(error) = read::<Many>(&words) {
            prop_assert!(!error.problems().is_empty());
            let shown = error.to_string();
            prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{}", shown);
        }
    }
}

use std::collections::{BTreeMap, HashMap};

use layercake_wire::payload::Fingerprint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::*;

fn checker_of(schema: Value) -> Checker {
    let print = Fingerprint::NONE;
    Checker::new(&MessageApi {
        name: "Test".to_owned(),
        schema,
        fingerprint: print,
        reply_schema: json!(true),
        reply_fingerprint: print,
        idempotent: false,
        stream: false,
        fallible: false,
        deadline_ms: None,
        http: crate::http::HttpApi::default(),
    })
}

/// The checker of a type, by the schema that nodes advertise.
fn checker<T: JsonSchema>() -> Checker {
    checker_of(crate::schema::advertised::<T>())
}

impl Checker {
    /// Reads parameters and checks what they make, as a gateway does.
    fn read_and_check<N: AsRef<str>, V: AsRef<str>>(
        &self,
        parameters: &[(N, V)],
    ) -> Result<Value, Vec<Problem>> {
        let (object, mut problems) = self.read(parameters);
        let object = Value::Object(object);
        problems.extend(self.check_beside(&object, &problems));
        // What is told at a glance is what it comes to in full.
        if let Some(json) = self.plain(parameters) {
            assert_eq!(problems, []);
            assert_eq!(json, serde_json::to_vec(&object).unwrap());
        }
        if problems.is_empty() { Ok(object) } else { Err(problems) }
    }
}

/// `pointer detail` of each problem.
fn said(problems: Vec<Problem>) -> Vec<String> {
    problems.into_iter().map(|p| format!("{} {}", p.pointer, p.detail)).collect()
}

fn wrong<T: JsonSchema>(value: Value) -> Vec<String> {
    said(checker::<T>().check(&value))
}

/// What a query decodes to, which shows that serde agrees with the checker.
fn query<T: JsonSchema + DeserializeOwned>(parameters: &[(&str, &str)]) -> Result<T, Vec<String>> {
    let value = checker::<T>().read_and_check(parameters).map_err(said)?;
    Ok(serde_json::from_value(value).expect("what is checked can be decoded"))
}

fn refused<T: JsonSchema + DeserializeOwned>(parameters: &[(&str, &str)]) -> Vec<String> {
    query::<T>(parameters).err().expect("refused")
}

#[derive(Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
struct Xy {
    x: u32,
    #[serde(default = "eight")]
    #[schemars(range(min = 1, max = 1000))]
    y: u32,
}

fn eight() -> u32 {
    8
}

#[derive(Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
enum Mood {
    Fair,
    Foul,
}

#[derive(Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
enum Shape {
    /// Nothing.
    Point,
    Square {
        side: u8,
    },
    Label(String),
}

#[derive(Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
struct Node {
    value: i8,
    left: Option<Box<Self>>,
    #[serde(default)]
    others: Vec<Self>,
}

#[derive(Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
struct Many {
    flag: Option<bool>,
    ratio: Option<f64>,
    text: Option<String>,
    mood: Option<Mood>,
    shape: Option<Shape>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    numbers: Vec<u8>,
    pair: Option<(u8, String)>,
    #[serde(default)]
    table: Vec<Vec<f64>>,
    #[serde(default)]
    by_name: HashMap<String, u8>,
    #[serde(default)]
    by_number: BTreeMap<i32, u8>,
    letter: Option<char>,
    any: Option<Value>,
    xy: Option<Xy>,
}

#[test]
fn a_query_becomes_a_message() {
    assert_eq!(query::<Xy>(&[("x", "2"), ("y", "3")]), Ok(Xy { x: 2, y: 3 }));
    assert_eq!(query::<Xy>(&[("x", "2")]), Ok(Xy { x: 2, y: 8 }));
    let at_a_glance = checker::<Xy>().plain(&[("y", "3"), ("x", "2")]);
    assert_eq!(at_a_glance.as_deref(), Some(&br#"{"y":3,"x":2}"#[..]));
}

#[test]
fn a_query_that_is_wrong_is_told_where() {
    assert_eq!(refused::<Xy>(&[("x", "abc")]), ["/x `abc` is not a whole number"]);
    assert_eq!(refused::<Xy>(&[("x", "")]), ["/x `` is not a whole number"]);
    assert_eq!(refused::<Xy>(&[("x", "2.0")]), ["/x `2.0` is not a whole number"]);
    assert_eq!(refused::<Xy>(&[("x", "-1")]), ["/x is less than 0"]);
    assert_eq!(refused::<Xy>(&[("x", "99999999999")]), ["/x is more than 4294967295"]);
    let huge = "9".repeat(30);
    assert_eq!(refused::<Xy>(&[("x", &huge)]), [format!("/x `{huge}` is out of range")]);
    assert_eq!(refused::<Xy>(&[]), ["/x is required"]);
    assert_eq!(refused::<Xy>(&[("x", "1"), ("x", "2")]), ["/x is given 2 times"]);
    assert_eq!(refused::<Xy>(&[("x", "1"), ("y", "0")]), ["/y is less than 1"]);
    assert_eq!(refused::<Xy>(&[("x", "1"), ("z", "2")]), ["/z is unknown: there are x, y"]);
    assert_eq!(refused::<Xy>(&[("xx", "1")]), ["/x is required", "/xx is unknown: there are x, y"]);
    assert_eq!(
        refused::<Xy>(&[("x", "a"), ("y", "1001"), ("y/z", "1")]),
        [
            "/x `a` is not a whole number",
            "/y is more than 1000",
            "/y~1z is unknown: there are x, y",
        ]
    );
    let problem =
        &checker::<Xy>().read_and_check(&[("x", "1"), ("a/b~", "")]).expect_err("unknown")[0];
    assert_eq!((&*problem.pointer, &*problem.parameter), ("/a~1b~0", "a/b~"));
}

#[test]
fn each_declared_type_has_its_form_in_a_query() {
    let many = query::<Many>(&[
        ("flag", "true"),
        ("ratio", "2.5"),
        ("text", "12"),
        ("mood", "Foul"),
        ("shape", r#"{"Square":{"side":3}}"#),
        ("tags", "a"),
        ("tags", "b"),
        ("numbers", "7"),
        ("pair", r#"[1,"b"]"#),
        ("table", "[[1,2.5]]"),
        ("by_name", r#"{"a":1}"#),
        ("by_number", r#"{"-1":1}"#),
        ("letter", "ä"),
        ("any", "{}"),
        ("xy", r#"{"x":1}"#),
    ]);
    let many = many.expect("fits");
    assert_eq!((many.flag, many.ratio, many.text.as_deref()), (Some(true), Some(2.5), Some("12")));
    assert_eq!((many.mood, many.shape), (Some(Mood::Foul), Some(Shape::Square { side: 3 })));
    assert_eq!((many.tags, many.numbers), (vec!["a".to_owned(), "b".to_owned()], vec![7]));
    assert_eq!((many.pair, many.table), (Some((1, "b".to_owned())), vec![vec![1.0, 2.5]]));
    assert_eq!((many.by_name["a"], many.by_number[&-1]), (1, 1));
    assert_eq!((many.letter, many.any), (Some('ä'), Some(json!({}))));
    assert_eq!(many.xy, Some(Xy { x: 1, y: 8 }));

    let empty = query::<Many>(&[("flag", ""), ("ratio", "null"), ("text", ""), ("tags", "[]")]);
    let empty = empty.expect("fits");
    assert_eq!((empty.flag, empty.ratio, empty.text), (None, None, Some(String::new())));
    assert_eq!(query::<Many>(&[("shape", "Point")]).expect("fits").shape, Some(Shape::Point));
    let label = query::<Many>(&[("shape", r#"{"Label":"a"}"#)]).expect("fits");
    assert_eq!(label.shape, Some(Shape::Label("a".to_owned())));
}

#[test]
fn what_does_not_have_the_form_is_said() {
    assert_eq!(refused::<Many>(&[("flag", "yes")]), ["/flag `yes` is not true or false"]);
    assert_eq!(refused::<Many>(&[("ratio", "inf")]), ["/ratio `inf` is not a number"]);
    assert_eq!(refused::<Many>(&[("mood", "Fowl")]), ["/mood is none of Fair, Foul"]);
    assert_eq!(refused::<Many>(&[("xy", "5")]), ["/xy `5` is not a JSON object"]);
    assert_eq!(
        refused::<Many>(&[("numbers", "1"), ("numbers", "a")]),
        ["/numbers `a` is not a whole number"]
    );
    assert_eq!(
        refused::<Many>(&[("numbers", "1"), ("numbers", "256")]),
        ["/numbers/1 is more than 255"]
    );
    let fragment = refused::<Many>(&[("table", "[[1,")]);
    assert!(fragment[0].starts_with("/table `[[1,` is not JSON: "), "{fragment:?}");
    assert_eq!(refused::<Many>(&[("letter", "ab")]), ["/letter has more than 1 character(s)"]);
    let long = &refused::<Xy>(&[("x", &"a".repeat(1000))])[0];
    assert!(long.len() < 100, "{long}");
}

#[test]
fn a_body_is_checked_all_the_way_down() {
    assert_eq!(wrong::<Xy>(json!({ "x": 1 })), Vec::<String>::new());
    assert_eq!(wrong::<Xy>(json!(null)), [" is null, not an object"]);
    assert_eq!(wrong::<Xy>(json!([])), [" is an array, not an object"]);
    assert_eq!(wrong::<Xy>(json!({ "x": null })), ["/x is null, not a whole number"]);
    assert_eq!(wrong::<Xy>(json!({ "x": "1" })), ["/x is a text, not a whole number"]);
    let fraction = "/x is a number with a fraction or beyond 64 bits, not a whole number";
    assert_eq!(wrong::<Xy>(json!({ "x": 2.0 })), [fraction]);
    assert_eq!(wrong::<Xy>(json!({ "x": 1e30 })), [fraction]);
    assert_eq!(
        wrong::<Many>(json!({ "xy": { "x": 1, "z": 2 } })),
        ["/xy/z is unknown: there are x, y"]
    );
    assert_eq!(wrong::<Many>(json!({ "xy": {} })), ["/xy/x is required"]);
    assert_eq!(
        wrong::<Many>(json!({ "table": [[1], [2, "a"]] })),
        ["/table/1/1 is a text, not a number"]
    );
    assert_eq!(wrong::<Many>(json!({ "pair": [1] })), ["/pair has less than 2 element(s)"]);
    assert_eq!(wrong::<Many>(json!({ "pair": [1, 2] })), ["/pair/1 is a number, not a text"]);
    assert_eq!(wrong::<Many>(json!({ "by_name": { "a": 256 } })), ["/by_name/a is more than 255"]);
    assert_eq!(
        wrong::<Many>(json!({ "by_number": { "a": 1 } })),
        ["/by_number/a is unknown: there are no parameters"]
    );
    assert_eq!(wrong::<Many>(json!({ "any": { "thing": [null] } })), Vec::<String>::new());
    assert_eq!(wrong::<Many>(json!({ "flag": null, "shape": null })), Vec::<String>::new());
}

#[test]
fn of_several_variants_the_one_that_was_meant_is_explained() {
    let shape = |shape| wrong::<Many>(json!({ "shape": shape }));
    assert_eq!(shape(json!("Point")), Vec::<String>::new());
    assert_eq!(shape(json!({ "Square": { "side": 1 } })), Vec::<String>::new());
    assert_eq!(
        shape(json!({ "Square": { "side": 256 } })),
        ["/shape/Square/side is more than 255"]
    );
    assert_eq!(shape(json!({ "Label": 1 })), ["/shape/Label is a number, not a text"]);
    assert_eq!(shape(json!("Pint")), ["/shape is not Point"]);
    assert_eq!(shape(json!({ "Oval": 1 })), ["/shape is none of Point, {Square: …}, {Label: …}"]);
    assert_eq!(shape(json!({ "Label": "a", "Square": { "side": 1 } })).len(), 1);
}

#[test]
fn tagged_and_flattened_types_keep_their_members() {
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Inner {
        a: u8,
    }
    #[derive(JsonSchema, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        One(Inner),
        Two { b: u8 },
    }
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Outer {
        tagged: Tagged,
        #[serde(flatten)]
        inner: Inner,
    }
    let ok = json!({ "tagged": { "kind": "One", "a": 1 }, "a": 1 });
    assert_eq!(wrong::<Outer>(ok), Vec::<String>::new());
    let ok = json!({ "tagged": { "kind": "Two", "b": 1 }, "a": 1 });
    assert_eq!(wrong::<Outer>(ok), Vec::<String>::new());
    let unknown = wrong::<Outer>(json!({ "tagged": { "kind": "One", "a": 1, "c": 1 }, "a": 1 }));
    assert_eq!(unknown, ["/tagged/c is unknown: there are kind, a, b"]);
    assert_eq!(
        wrong::<Outer>(json!({ "tagged": { "kind": "Two", "b": 1 }, "a": 256 })),
        ["/a is more than 255"]
    );
}

#[test]
fn a_recursive_type_is_checked_as_deep_as_it_may_go() {
    let nest = |depth: usize, leaf: Value| {
        (0..depth).fold(leaf, |inner, _| json!({ "value": 1, "left": inner }))
    };
    let leaf = json!({ "value": 1 });
    assert_eq!(wrong::<Node>(nest(50, leaf.clone())), Vec::<String>::new());
    let deep = wrong::<Node>(nest(3, json!({ "value": 200, "others": [{ "value": "a" }] })));
    assert_eq!(
        deep,
        [
            "/left/left/left/value is more than 127",
            "/left/left/left/others/0/value is a text, not a whole number",
        ]
    );
    let too_deep = wrong::<Node>(nest(100, leaf));
    assert!(!too_deep.is_empty());
    assert!(too_deep.iter().all(|p| p.contains("nested deeper than 64")), "{too_deep:?}");
    let query = query::<Node>(&[("value", "1"), ("left", r#"{"value":2}"#)]).expect("fits");
    assert_eq!(query.left.expect("given").value, 2);
}

#[test]
fn only_so_many_problems_are_reported() {
    let many: Vec<_> = (0..100).map(|_| json!("a")).collect();
    assert_eq!(wrong::<Many>(json!({ "numbers": many })).len(), MAX_PROBLEMS);
    let names: Vec<_> = (0..100).map(|n| (format!("z{n}"), "")).collect();
    let problems = checker::<Xy>().read_and_check(&names).expect_err("unknown");
    assert_eq!(problems.len(), MAX_PROBLEMS);
}

#[test]
fn what_is_known_of_a_schema_is_no_more_than_its_document() {
    let properties: Map<_, _> = (0..100).map(|n| (format!("p{n}"), json!(true))).collect();
    let again: Vec<_> = (0..100).map(|_| json!({ "$ref": "#/$defs/a" })).collect();
    let doubled = checker_of(json!({
        "$defs": { "a": { "properties": properties, "anyOf": again } },
        "allOf": again
    }));
    let declared = Declared::of(&doubled.schemas, Schemas::ROOT);
    assert_eq!((declared.names.len(), declared.open), (100, false));
}

#[test]
fn a_hostile_schema_neither_panics_nor_takes_forever() {
    let doubling = json!({
        "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } },
        "properties": { "x": { "$ref": "#/$defs/a" } }
    });
    let forever = checker_of(doubling);
    assert_ne!(forever.check(&json!({ "x": 1 })), []);
    let _ = forever.read_and_check(&[("x", "1")]);
    for odd in [
        json!(null),
        json!(7),
        json!({ "$ref": "#" }),
        json!({ "$ref": 7 }),
        json!({ "type": 7, "enum": 7, "required": "x", "properties": [], "items": 7 }),
        json!({ "properties": { "x": { "minimum": "a", "minLength": -1, "anyOf": [] } } }),
        json!({ "properties": { "x": { "type": [], "prefixItems": {}, "oneOf": [7, null] } } }),
        json!({ "patternProperties": { "(": {} }, "additionalProperties": 7 }),
    ] {
        let odd = checker_of(odd);
        for value in [json!({ "x": 1 }), json!({ "x": ["a"] }), json!([{}]), json!(null)] {
            let _ = odd.check(&value);
        }
        let _ = odd.read_and_check(&[("x", "1"), ("x", "2"), ("y", "")]);
    }
}

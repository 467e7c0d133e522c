use std::collections::{BTreeMap, HashMap};

use super::*;

fn print<T: JsonSchema>() -> Fingerprint {
    let (_, print) = schema_of::<T>(Contract::Deserialize);
    let (_, other) = schema_of::<T>(Contract::Serialize);
    assert_eq!(print, other, "what is sent is what is received");
    print
}

/// Declares a type of the same name for each of two versions, and compares their fingerprints.
macro_rules! versions {
    ($relation:ident, $name:ident: { $($old:tt)* } { $($new:tt)* }) => {{
        let old = {
            #[allow(dead_code)]
            #[derive(JsonSchema, Serialize, Deserialize)]
            $($old)*
            print::<$name>()
        };
        let new = {
            #[allow(dead_code)]
            #[derive(JsonSchema, Serialize, Deserialize)]
            $($new)*
            print::<$name>()
        };
        assert_ne!(old, Fingerprint::NONE);
        assert_ne!(new, Fingerprint::NONE);
        versions!(@$relation old, new);
    }};
    (@same $old:ident, $new:ident) => { assert_eq!($old, $new) };
    (@differ $old:ident, $new:ident) => { assert_ne!($old, $new) };
}

#[test]
fn a_change_of_fields_changes_the_fingerprint() {
    versions!(differ, A: { struct A { x: u32 } } { struct A { x: u32, y: u32 } });
    versions!(differ, A: { struct A { x: u32, y: u8 } } { struct A { y: u8, x: u32 } });
    versions!(differ, A: { struct A { x: u32 } } { struct A { x: u64 } });
    versions!(differ, A: { struct A { x: u32 } } { struct A { x: i32 } });
    versions!(differ, A: { struct A { x: u32 } } { struct A { x: Option<u32> } });
    versions!(differ, A: { struct A { x: f32 } } { struct A { x: f64 } });
    versions!(differ, A: { struct A { x: u32 } } { struct A { z: u32 } });
    versions!(differ, A: { struct A { x: [u8; 3] } } { struct A { x: [u8; 4] } });
    versions!(differ, A: { struct A { x: [u8; 3] } } { struct A { x: Vec<u8> } });
    versions!(differ, A: { struct A { x: char } } { struct A { x: String } });
    versions!(differ, A: { struct A { x: (u8, u16) } } { struct A { x: (u16, u8) } });
    versions!(differ, A: { struct A { x: HashMap<String, u8> } }
        { struct A { x: HashMap<String, u16> } });
}

#[test]
fn a_change_of_a_type_within_changes_the_fingerprint() {
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Old {
        x: u8,
    }
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct New {
        x: u16,
    }
    versions!(differ, A: { struct A { all: Vec<Old> } } { struct A { all: Vec<New> } });
    versions!(differ, A: { struct A { all: Option<Old> } } { struct A { all: Option<New> } });
}

#[test]
fn a_change_of_variants_changes_the_fingerprint() {
    versions!(differ, A: { enum A { X, Y } } { enum A { Y, X } });
    versions!(differ, A: { enum A { X, Y } } { enum A { X, Y, Z } });
    versions!(differ, A: { enum A { X(u8), Y(u8) } } { enum A { Y(u8), X(u8) } });
    versions!(differ, A: { enum A { X(u8), Y(u8) } } { enum A { X(u16), Y(u8) } });
}

#[test]
fn what_does_not_change_the_bytes_does_not_change_the_fingerprint() {
    versions!(same, A: { struct A { x: u32 } } {
        /// With a comment,
        struct A {
            /// a comment on a field,
            #[schemars(range(max = 10), example = 7)]
            x: u32,
        }
    });
    versions!(same, A: { struct A { x: u32 } } { struct A { #[serde(default)] x: u32 } });
    versions!(same, A: { enum A { X, Y } } { enum A { /** One. */ X, /** Two. */ Y } });
    // Not the type's name either, nor what it is called within.
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Old {
        title: String,
    }
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct New {
        title: String,
    }
    versions!(same, A: { struct A { x: Vec<Old> } } { struct A { x: Vec<New> } });
    assert_eq!(print::<Old>(), print::<New>());
}

#[test]
fn a_field_called_as_a_keyword_is_a_field() {
    versions!(differ, A: { struct A { title: u8, description: u8 } }
        { struct A { description: u8, title: u8 } });
    versions!(differ, A: { struct A { default: u8 } } { struct A { required: u8 } });
}

#[test]
fn a_recursive_type_has_a_fingerprint() {
    versions!(differ, A: { struct A { x: u8, more: Vec<Self> } } { struct A { x: u16, more: Vec<Self> } });
    versions!(same, A: { struct A { x: u8, more: Option<Box<Self>> } }
        { struct A { #[serde(default)] x: u8, more: Option<Box<Self>> } });
}

#[test]
fn what_bincode_cannot_carry_has_none() {
    #[allow(dead_code)]
    #[derive(JsonSchema, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Internal {
        X { x: u8 },
        Y,
    }
    #[allow(dead_code)]
    #[derive(JsonSchema, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        X(u8),
        Y(String),
    }
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Any {
        /// Whatever.
        value: Value,
    }
    // Its variant without fields loses its place in the schema.
    #[allow(dead_code)]
    #[derive(JsonSchema, Serialize, Deserialize)]
    enum Mixed {
        X(u8),
        Y,
    }
    assert_eq!(print::<Internal>(), Fingerprint::NONE);
    assert_eq!(print::<Untagged>(), Fingerprint::NONE);
    assert_eq!(print::<Any>(), Fingerprint::NONE);
    assert_eq!(print::<Vec<Any>>(), Fingerprint::NONE);
    assert_eq!(print::<Mixed>(), Fingerprint::NONE);
    assert_eq!(print::<serde_json::Number>(), Fingerprint::NONE);
    assert_eq!(print::<BTreeMap<u8, u8>>(), Fingerprint::NONE);
}

/// As `#[data]` derives it.
#[test]
fn the_order_of_a_mixed_enum_is_seen_where_it_is_told() {
    versions!(differ, A: {
        #[schemars(extend("x-layercake-variants" = ["X", "Y", "Z"]))]
        enum A { X, Y(u8), Z }
    } {
        #[schemars(extend("x-layercake-variants" = ["X", "Z", "Y"]))]
        enum A { X, Z, Y(u8) }
    });
    versions!(same, A: {
        #[schemars(extend("x-layercake-variants" = ["X", "Y", "Z"]))]
        enum A { X, Y(u8), Z }
    } {
        #[schemars(extend("x-layercake-variants" = ["X", "Y", "Z"]))]
        enum A { X, Y(u8), /** With a comment. */ Z }
    });
}

#[test]
fn bytes_travel_as_bincode() {
    assert_ne!(print::<bytes::Bytes>(), Fingerprint::NONE);
    assert_ne!(print::<Option<bytes::Bytes>>(), Fingerprint::NONE);
}

#[test]
fn ordinary_types_have_fingerprints() {
    for print in [
        print::<()>(),
        print::<bool>(),
        print::<String>(),
        print::<Vec<Vec<f64>>>(),
        print::<Option<Vec<u8>>>(),
        print::<Result<u8, String>>(),
        print::<HashMap<String, (u8, char)>>(),
        print::<std::time::Duration>(),
        print::<std::net::SocketAddr>(),
    ] {
        assert_ne!(print, Fingerprint::NONE);
    }
}

#[test]
fn the_fingerprint_does_not_depend_on_the_build() {
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Xy {
        x: u32,
        y: Option<String>,
    }
    // A change of this number makes old and new nodes speak JSON to each other.
    let text = r#"{properties:"x"{format:"uint32";type:"integer";}"y"{type:["string","null"];};type:"object";}"#;
    assert_eq!(print::<Xy>(), Fingerprint(Tag::of(text).0));
}

#[test]
fn integers_carry_their_limits_and_keep_narrower_ones() {
    #[allow(dead_code)]
    #[derive(JsonSchema)]
    struct Numbers {
        a: u32,
        b: i64,
        c: u64,
        d: u128,
        e: Option<i32>,
        #[schemars(range(min = 1, max = 1000))]
        f: u32,
        #[schemars(range(max = 100_000_000_000_u64))]
        g: u32,
    }
    let (schema, _) = schema_of::<Numbers>(Contract::Deserialize);
    let limits = |name: &str| {
        let schema = &schema["properties"][name];
        (schema["minimum"].clone(), schema["maximum"].clone())
    };
    assert_eq!(limits("a"), (0.into(), u32::MAX.into()));
    assert_eq!(limits("b"), (i64::MIN.into(), i64::MAX.into()));
    assert_eq!(limits("c"), (0.into(), u64::MAX.into()));
    assert_eq!(limits("d"), (0.into(), Value::Null));
    assert_eq!(limits("e"), (i32::MIN.into(), i32::MAX.into()));
    assert_eq!(limits("f"), (1.into(), 1000.into()));
    assert_eq!(limits("g"), (0.into(), u32::MAX.into()));
}

#[test]
fn a_schema_holds_no_note_of_ours_and_is_self_contained() {
    #[allow(dead_code)]
    #[derive(JsonSchema)]
    #[schemars(extend("x-layercake-variants" = ["X", "Y"]))]
    enum Noted {
        X,
        Y,
    }
    #[allow(dead_code)]
    #[derive(JsonSchema)]
    struct Holder {
        noted: Noted,
    }
    let (schema, _) = schema_of::<Holder>(Contract::Deserialize);
    let text = schema.to_string();
    assert!(!text.contains("x-layercake") && !text.contains("$schema"), "{text}");
    let reference = schema["properties"]["noted"]["$ref"].as_str().expect("a reference");
    assert_eq!(resolve(&schema, reference).expect("defined")["enum"][1], "Y");
}

#[test]
fn references_are_decoded() {
    let root = serde_json::json!({ "$defs": { "Pair<A/B>": { "type": "null" }, "ä": {} } });
    assert!(resolve(&root, "#/$defs/Pair%3CA~1B%3E").is_some());
    assert!(resolve(&root, "#/$defs/%C3%A4").is_some());
    assert!(resolve(&root, "#").is_some());
    for bad in ["", "/$defs/ä", "#/$defs/none", "#/$defs/%FF", "#%", "#/%4", "#/%é"] {
        assert!(resolve(&root, bad).is_none(), "{bad}");
    }
}

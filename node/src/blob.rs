//! Bytes with a media type, as a field of a message or as a reply.
//!
//! In the compact encoding and between nodes they are bytes; only in JSON that somebody reads as text do
//! they stand as base64.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use layercake_wire::payload;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

use crate::http::BLOB;

/// What bytes are of which nothing is said.
pub(crate) const UNTYPED: &str = "application/octet-stream";

/// Bytes with a media type: an image, a document, a recording.
///
/// As the body field of a message (`#[arg(body)]`) it is what a client sends over HTTP, and as a reply it
/// is what a client gets, without base64 on the way. With the rest of its message it has room in
/// [`MAX_MESSAGE`](layercake_wire::payload::MAX_MESSAGE); for more there is [`Upload`](crate::Upload),
/// and a reply in parts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob {
    /// Their media type: `image/png`.
    pub media_type: String,
    /// They.
    pub bytes: Bytes,
    /// What tells this version of them from others, without quotation marks. A client that has it is
    /// told over HTTP that nothing has changed (304).
    pub etag: Option<String>,
}

impl Blob {
    /// Bytes of that media type.
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self { media_type: media_type.into(), bytes: bytes.into(), etag: None }
    }

    /// The same with an entity tag.
    #[must_use]
    pub fn with_etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({}, {} bytes)", self.media_type, self.bytes.len())
    }
}

/// As it is written.
#[derive(Serialize)]
#[serde(rename = "Blob")]
struct Written<'b> {
    media_type: &'b str,
    bytes: Out<'b>,
    etag: &'b Option<String>,
}

/// As it is read.
#[derive(Deserialize)]
#[serde(rename = "Blob")]
struct Read {
    #[serde(default = "untyped")]
    media_type: String,
    bytes: In,
    #[serde(default)]
    etag: Option<String>,
}

fn untyped() -> String {
    UNTYPED.to_owned()
}

struct Out<'b>(&'b Bytes);
struct In(Bytes);

impl Serialize for Out<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        match payload::set_aside(self.0) {
            Some(number) => serializer.serialize_u32(number),
            None => serializer.serialize_str(&STANDARD.encode(self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for In {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = In;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes as base64")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<In, E> {
                let number = u32::try_from(number).ok();
                number
                    .and_then(payload::aside)
                    .map(In)
                    .ok_or_else(|| E::custom("bytes that stand beside the message are not there"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<In, E> {
                match STANDARD.decode(text) {
                    Ok(bytes) => Ok(In(bytes.into())),
                    Err(error) => Err(E::custom(format!("not base64: {error}"))),
                }
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<In, E> {
                Ok(In(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<In, E> {
                Ok(In(bytes.into()))
            }
        }
        match deserializer.is_human_readable() {
            true => deserializer.deserialize_any(Any),
            false => deserializer.deserialize_byte_buf(Any),
        }
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { media_type, bytes, etag } = self;
        Written { media_type, bytes: Out(bytes), etag }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { media_type, bytes: In(bytes), etag } = Read::deserialize(deserializer)?;
        Ok(Self { media_type, bytes, etag })
    }
}

impl JsonSchema for Blob {
    fn schema_name() -> Cow<'static, str> {
        "Blob".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Blob").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Bytes with a media type.",
            "properties": {
                "media_type": { "type": "string", "default": UNTYPED },
                "bytes": { "type": "string", "contentEncoding": "base64" },
                "etag": { "type": ["string", "null"], "default": null },
            },
            "required": ["bytes"],
            BLOB: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use layercake_wire::payload::{Encoding, decode, encode};

    use super::*;

    fn blob() -> Blob {
        Blob::new("image/png", &[0, 159, 146, 150, 255][..]).with_etag("v1")
    }

    #[test]
    fn every_encoding_brings_it_back() {
        let pair = (blob(), vec![Some(Blob::new("a/b", "c")), None]);
        for encoding in [Encoding::Bincode, Encoding::Json, Encoding::Parts] {
            let bytes = encode(encoding, &pair).expect("encodes");
            let back: (Blob, Vec<Option<Blob>>) = decode(encoding, &bytes).expect("decodes");
            assert_eq!(back, pair, "{encoding:?}");
        }
    }

    #[test]
    fn bytes_stand_as_they_are_where_nobody_reads_them() {
        let bytes = encode(Encoding::Parts, &blob()).expect("encodes");
        assert!(bytes.ends_with(&blob().bytes), "{bytes:?}");
        let (encoding, _) = payload::describe(&blob()).expect("encodes");
        assert_eq!(encoding, Encoding::Parts);
        let text = serde_json::to_string(&blob()).expect("encodes");
        assert_eq!(text, r#"{"media_type":"image/png","bytes":"AJ+Slv8=","etag":"v1"}"#);
        let compact = encode(Encoding::Bincode, &blob()).expect("encodes");
        assert!(compact.len() < 32, "{compact:?}");
    }

    #[test]
    fn a_number_without_its_bytes_is_refused() {
        for json in [r#"{"bytes":0}"#, r#"{"bytes":-1}"#, r#"{"bytes":"*"}"#, "{}"] {
            assert!(serde_json::from_str::<Blob>(json).is_err(), "{json}");
        }
        let (json, beside) = (br#"{"bytes":1}"#, [Bytes::from_static(b"only one")]);
        let joined = payload::join(json, &beside).expect("joins");
        assert!(decode::<Blob>(Encoding::Parts, &joined).is_err());
    }
}

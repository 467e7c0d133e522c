//! Payloads: an encoded message with its tag and its encoding, and the only place that names bincode.
//!
//! Nothing between the sender and the receiver decodes a payload. Two nodes that know the same
//! fingerprint of a type use [`Encoding::Bincode`]; otherwise [`Encoding::Json`], which carries field
//! names, so that added fields with defaults and removed fields do no harm. Of a self-describing value
//! long bytes may stand beside the JSON ([`Encoding::Parts`]), where a type says so by [`set_aside`].

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

/// The largest encoded message, in bytes, unless configured otherwise.
pub const MAX_MESSAGE: usize = 32 << 20;

/// How many values may stand beside the JSON of a message. Further ones stand in it.
pub const MAX_BESIDE: usize = 1 << 12;

/// How a payload is encoded. The numbers are the wire's; a retired number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// bincode 2, standard configuration: compact, and only for equal schemas.
    Bincode = 1,
    /// JSON (RFC 8259): self-describing. A float that is not a number cannot be told.
    Json = 2,
    /// JSON with bytes beside it, to which it refers by number. See [`join`].
    Parts = 3,
}

impl Encoding {
    /// Reads the wire's number.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Bincode),
            2 => Some(Self::Json),
            3 => Some(Self::Parts),
            _ => None,
        }
    }
}

/// The name of a message type as eight bytes: FNV-1a of its name, computed at compile time.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Tag(pub u64);

impl Tag {
    /// The tag of a message name. (FNV-1a, 64 bits: Fowler, Noll, Vo.)
    #[must_use]
    pub const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }
}

/// A structural fingerprint of a type; [`Fingerprint::NONE`] where self-describing data is wanted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Matches no type: asks for the self-describing encoding.
    pub const NONE: Self = Self(0);
    /// Matches no type either: asks for the self-describing encoding with bytes beside it.
    pub const PARTS: Self = Self(u64::MAX);
}

/// An encoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Which message type.
    pub tag: Tag,
    /// How `bytes` is encoded.
    pub encoding: Encoding,
    /// The encoded value.
    pub bytes: Bytes,
}

impl Payload {
    /// Decodes the value. Bytes beside JSON are not copied.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        match self.encoding {
            Encoding::Parts => {
                let (json, beside) = split(&self.bytes)?;
                decode_beside(&json, beside)
            }
            alone => decode(alone, &self.bytes),
        }
    }
}

/// Why a value cannot be put into or taken out of a payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value has something that the encoding cannot express.
    #[error("cannot encode as {encoding:?}: {reason}")]
    Encode {
        /// The encoding tried.
        encoding: Encoding,
        /// What the encoder said.
        reason: String,
    },
    /// The bytes are not a value of the expected type. The sender has another type of that name.
    #[error("cannot decode {encoding:?}: {reason}")]
    Decode {
        /// The encoding of the payload.
        encoding: Encoding,
        /// What the decoder said.
        reason: String,
    },
    /// The encoded value is larger than a message may be.
    #[error("encoded message of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit in force.
        limit: usize,
    },
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_MESSAGE>()
}

/// Encodes a value.
///
/// # Errors
/// [`CodecError::Encode`] where the encoding cannot express the value, [`CodecError::TooLarge`] above
/// [`MAX_MESSAGE`].
pub fn encode<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Result<Bytes, CodecError> {
    let bytes = match encoding {
        Encoding::Bincode => {
            bincode::serde::encode_to_vec(value, bincode_config()).map_err(|e| e.to_string())
        }
        Encoding::Json => serde_json::to_vec(value).map_err(|e| e.to_string()),
        Encoding::Parts => {
            return encode_parts(value).and_then(|(json, beside)| join(&json, &beside));
        }
    }
    .map_err(|reason| CodecError::Encode { encoding, reason })?;
    if bytes.len() > MAX_MESSAGE {
        return Err(CodecError::TooLarge { size: bytes.len(), limit: MAX_MESSAGE });
    }
    Ok(bytes.into())
}

/// Decodes a value; the whole input must be used up. What is at hand as a [`Payload`] is decoded by
/// [`Payload::decode`], which copies less.
///
/// # Errors
/// [`CodecError::Decode`] says what is wrong and, for JSON, where.
pub fn decode<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, CodecError> {
    match encoding {
        Encoding::Bincode => match bincode::serde::decode_from_slice(bytes, bincode_config()) {
            Ok((value, used)) if used == bytes.len() => Ok(value),
            Ok((_, used)) => Err(format!("{} bytes left over", bytes.len() - used)),
            Err(e) => Err(e.to_string()),
        },
        Encoding::Json => serde_json::from_slice(bytes).map_err(|e| e.to_string()),
        Encoding::Parts => {
            let (json, beside) = split(&Bytes::copy_from_slice(bytes))?;
            return decode_beside(&json, beside);
        }
    }
    .map_err(|reason| CodecError::Decode { encoding, reason })
}

/// Decodes JSON with the bytes beside it, as [`split`] gives them.
///
/// # Errors
/// As [`decode`].
pub fn decode_beside<T: DeserializeOwned>(
    json: &[u8],
    beside: Vec<Bytes>,
) -> Result<T, CodecError> {
    with_beside(beside, || serde_json::from_slice(json)).0.map_err(|error| CodecError::Decode {
        encoding: Encoding::Parts,
        reason: error.to_string(),
    })
}

/// Encodes a value so that it describes itself: as [`Encoding::Parts`] where anything in it wants to
/// stand beside the JSON, as [`Encoding::Json`] otherwise.
///
/// # Errors
/// As [`encode`].
pub fn describe<T: Serialize + ?Sized>(value: &T) -> Result<(Encoding, Bytes), CodecError> {
    let (json, beside) = encode_parts(value)?;
    if !beside.is_empty() {
        return Ok((Encoding::Parts, join(&json, &beside)?));
    }
    if json.len() > MAX_MESSAGE {
        return Err(CodecError::TooLarge { size: json.len(), limit: MAX_MESSAGE });
    }
    Ok((Encoding::Json, json.into()))
}

fn encode_parts<T: Serialize + ?Sized>(value: &T) -> Result<(Vec<u8>, Vec<Bytes>), CodecError> {
    let (json, beside) = with_beside(Vec::new(), || serde_json::to_vec(value));
    let json = json.map_err(|error| CodecError::Encode {
        encoding: Encoding::Parts,
        reason: error.to_string(),
    })?;
    Ok((json, beside))
}

thread_local! {
    /// What stands beside the JSON that this thread writes or reads.
    static BESIDE: RefCell<Option<Vec<Bytes>>> = const { RefCell::new(None) };
}

/// Writes or reads JSON with bytes beside it, and what stands there then.
fn with_beside<R>(beside: Vec<Bytes>, work: impl FnOnce() -> R) -> (R, Vec<Bytes>) {
    /// Puts back what was there before, also when the work panics.
    struct Back(Option<Vec<Bytes>>);
    impl Drop for Back {
        fn drop(&mut self) {
            BESIDE.set(self.0.take());
        }
    }
    let _back = Back(BESIDE.replace(Some(beside)));
    let result = work();
    (result, BESIDE.take().unwrap_or_default())
}

/// Puts bytes beside the JSON that is being written, and says under which number; `None` where they
/// have to stand in it. To be called by implementations of `Serialize`.
#[must_use]
pub fn set_aside(bytes: &Bytes) -> Option<u32> {
    BESIDE.with_borrow_mut(|beside| {
        let beside = beside.as_mut().filter(|beside| beside.len() < MAX_BESIDE)?;
        beside.push(bytes.clone());
        u32::try_from(beside.len() - 1).ok()
    })
}

/// The bytes of that number beside the JSON that is being read. To be called by implementations of
/// `Deserialize`.
#[must_use]
pub fn aside(number: u32) -> Option<Bytes> {
    BESIDE.with_borrow(|beside| beside.as_ref()?.get(number as usize).cloned())
}

/// Puts JSON and the bytes beside it together: how many there are, how long each of them is, the JSON
/// first (all as four bytes, little endian), then the JSON, then the bytes.
///
/// # Errors
/// [`CodecError::TooLarge`] above [`MAX_MESSAGE`].
pub fn join(json: &[u8], beside: &[Bytes]) -> Result<Bytes, CodecError> {
    let all = || std::iter::once(json).chain(beside.iter().map(|bytes| &bytes[..]));
    let size = all().fold(4_usize, |size, part| size.saturating_add(4).saturating_add(part.len()));
    if size > MAX_MESSAGE {
        return Err(CodecError::TooLarge { size, limit: MAX_MESSAGE });
    }
    let mut joined = BytesMut::with_capacity(size);
    // Each is less than the limit, which fits.
    joined.put_u32_le(beside.len() as u32);
    all().for_each(|part| joined.put_u32_le(part.len() as u32));
    all().for_each(|part| joined.put_slice(part));
    Ok(joined.freeze())
}

/// Takes apart what [`join`] put together, without a copy.
///
/// # Errors
/// [`CodecError::Decode`] where it is no such thing.
pub fn split(joined: &Bytes) -> Result<(Bytes, Vec<Bytes>), CodecError> {
    let take = || {
        let number = |at: usize| {
            let bytes = joined.get(at..at.checked_add(4)?)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let count = number(0).filter(|count| *count <= MAX_BESIDE)?;
        let mut at = count.checked_mul(4)?.checked_add(8).filter(|at| *at <= joined.len())?;
        let mut parts = Vec::with_capacity(count + 1);
        for part in 0..=count {
            let end = at.checked_add(number(4 + 4 * part)?)?;
            parts.push(joined.get(at..end).map(|_| joined.slice(at..end))?);
            at = end;
        }
        (at == joined.len()).then_some(parts)
    };
    let mut parts = take().ok_or_else(|| CodecError::Decode {
        encoding: Encoding::Parts,
        reason: "the lengths of its parts do not add up".to_owned(),
    })?;
    let json = parts.remove(0);
    Ok((json, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Xy {
        x: u32,
        #[serde(default)]
        y: u32,
    }

    #[test]
    fn both_encodings_bring_a_value_back() {
        for encoding in [Encoding::Bincode, Encoding::Json] {
            let bytes = encode(encoding, &Xy { x: 2, y: 300 }).expect("encodes");
            assert_eq!(decode::<Xy>(encoding, &bytes).expect("decodes"), Xy { x: 2, y: 300 });
        }
    }

    #[test]
    fn the_bytes_of_bincode_do_not_change() {
        let bytes = encode(Encoding::Bincode, &(2_u32, 300_u32, "ab", Some(1.5_f64)));
        let expected: &[u8] = &[
            2, // a small integer is one byte
            251, 44, 1, // 251 announces two bytes, little endian
            2, b'a', b'b', // length, bytes
            1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // Some, then the float
        ];
        assert_eq!(&bytes.expect("encodes")[..], expected);
    }

    #[test]
    fn what_was_joined_comes_apart_and_nothing_else_does() {
        let beside = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(&[0; 300])];
        let joined = join(b"{}", &beside).expect("joins");
        let (json, parts) = split(&joined).expect("splits");
        assert_eq!((&json[..], &parts[..]), (&b"{}"[..], &beside[..]));
        for end in 0..joined.len() {
            assert!(split(&joined.slice(..end)).is_err(), "cut at {end}");
        }
        for at in 0..16 {
            let mut hostile = joined.to_vec();
            hostile[at] = 0xff;
            assert!(split(&hostile.into()).is_err(), "at {at}");
        }
        let many = join(b"{}", &vec![Bytes::new(); MAX_BESIDE + 1]).expect("joins");
        assert!(split(&many).is_err(), "nobody sets so many aside");
        let large = Bytes::from(vec![0; MAX_MESSAGE]);
        assert!(matches!(join(b"{}", &[large]), Err(CodecError::TooLarge { .. })));
    }

    #[test]
    fn nothing_stands_beside_json_that_is_written_alone() {
        assert_eq!(set_aside(&Bytes::from_static(b"one")), None);
        with_beside(vec![Bytes::new(); MAX_BESIDE], || {
            assert_eq!(set_aside(&Bytes::new()), None, "there are enough");
        });
        let (encoding, bytes) = describe(&[1, 2]).expect("encodes");
        assert_eq!((encoding, &bytes[..]), (Encoding::Json, &b"[1,2]"[..]));
        let parts = encode(Encoding::Parts, &[1, 2]).expect("encodes");
        assert_eq!(decode::<[u8; 2]>(Encoding::Parts, &parts).expect("decodes"), [1, 2]);
    }

    #[test]
    fn json_fills_in_defaults_and_passes_over_the_unknown() {
        let value: Xy = decode(Encoding::Json, br#"{"x":1,"later":true}"#).expect("decodes");
        assert_eq!(value, Xy { x: 1, y: 0 });
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let error = decode::<u8>(Encoding::Bincode, &[1, 2]).expect_err("one too many");
        assert!(error.to_string().contains("1 bytes left over"), "{error}");
    }

    #[test]
    fn a_hostile_length_fails_without_allocating() {
        let bytes = [253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert!(decode::<Vec<u64>>(Encoding::Bincode, &bytes).is_err());
    }

    #[test]
    fn tags_are_stable() {
        assert_eq!(Tag::of("Xy"), Tag(0x095d_4f07_b5e9_09fa));
    }
}

//! What `#[message]` declares of HTTP, checked while it is compiled.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Ident, LitStr, Result};

use crate::{
    message::Args,
    types::{Part, Place},
};

/// The longest template, in bytes.
const MAX_TEMPLATE: usize = 256;

/// What a message declares.
pub(crate) struct Declared<'a> {
    pub(crate) routes: &'a [(Ident, LitStr)],
    pub(crate) places: &'a [Place],
    /// What its fields are called in JSON.
    pub(crate) members: &'a [LitStr],
    /// Whether serde calls them something else than it seems.
    pub(crate) renames: bool,
}

impl Declared<'_> {
    /// The function that tells it; nothing where there is nothing to tell.
    pub(crate) fn expand(&self, args: &Args) -> Result<TokenStream> {
        let Args { status, consumes, produces, etag, stream, .. } = args;
        let silent = self.routes.is_empty()
            && self.places.is_empty()
            && status.is_none()
            && consumes.is_none()
            && produces.is_none()
            && etag.is_none();
        if silent {
            return Ok(TokenStream::new());
        }
        if let (true, Some(member)) = (self.renames, self.members.first()) {
            let why = "with forms over HTTP, rename fields one by one: #[serde(rename = \"…\")]";
            return Err(Error::new(member.span(), why));
        }
        let mut known: Vec<(String, String)> = Vec::new();
        for (method, template) in self.routes {
            let shape = self.check(template)?;
            let form = (method.to_string(), shape);
            if known.contains(&form) {
                return Err(Error::new(template.span(), "this form is given twice"));
            }
            known.push(form);
        }
        let methods = self.routes.iter().map(|(method, _)| method.to_string().to_uppercase());
        let templates = self.routes.iter().map(|(_, template)| template);
        let (mut headers, mut names, mut query, mut body) = (vec![], vec![], vec![], None);
        for Place { member, part } in self.places {
            match part {
                Part::Header(name) => {
                    headers.push(member);
                    names.push(name);
                }
                Part::Query => query.push(member),
                Part::Body => {
                    if body.replace(member).is_some() {
                        return Err(Error::new(member.span(), "one field is the body"));
                    }
                }
            }
        }
        if let (Some(_), Some((method, _))) = (body, self.routes.iter().find(|(m, _)| m == "get")) {
            return Err(Error::new(method.span(), "a `GET` has no body, and a field is one"));
        }
        let (taken, given) = (media_types(consumes)?, media_types(produces)?);
        if let (Some(text), None) = (consumes, body) {
            let why = "`consumes` is about the field with `#[arg(body)]`, and there is none";
            return Err(Error::new(text.span(), why));
        }
        if let (Some(member), Some(_)) = (etag, stream) {
            return Err(Error::new(member.span(), "a reply in parts has no field for an `etag`"));
        }
        let body = match body {
            Some(member) => quote!(::std::option::Option::Some(#member.into())),
            None => quote!(::std::option::Option::None),
        };
        let status = match status {
            Some(status) => match status.base10_parse::<u16>()? {
                200..=299 => quote!(#status),
                _ => {
                    let why = "the status of a reply is one of 200 to 299";
                    return Err(Error::new(status.span(), why));
                }
            },
            None => quote!(0),
        };
        let etag = match etag {
            Some(member) => quote!(::std::option::Option::Some(#member.into())),
            None => quote!(::std::option::Option::None),
        };
        Ok(quote! {
            fn http() -> ::layercake::__private::HttpApi {
                ::layercake::__private::HttpApi {
                    routes: ::std::vec![#((#methods.into(), #templates.into())),*],
                    headers: ::std::vec![#((#headers.into(), #names.into())),*],
                    query: ::std::vec![#(#query.into()),*],
                    body: #body,
                    status: #status,
                    consumes: ::std::vec![#(#taken.into()),*],
                    produces: ::std::vec![#(#given.into()),*],
                    etag: #etag,
                }
            }
        })
    }

    /// Checks a template, and what it is without the names in it.
    fn check(&self, template: &LitStr) -> Result<String> {
        let text = template.value();
        let refuse = |why: String| Err(Error::new(template.span(), why));
        let Some(path) = text.strip_prefix('/').filter(|_| text.len() <= MAX_TEMPLATE) else {
            return refuse(format!(
                "`{text}`: a path begins with `/` and has at most {MAX_TEMPLATE} bytes"
            ));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
        let mut shape = String::new();
        let mut holes: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            shape.push('/');
            let hole = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let Some(name) = hole else {
                if segment.is_empty() || !segment.chars().all(plain) {
                    return refuse(format!(
                        "`{text}`: a segment is a field in braces, as `{{x}}`, or a text without \
                         spaces and braces"
                    ));
                }
                if matches!(segment, "." | "..") {
                    return refuse(format!("`{text}`: no client asks for `{segment}`"));
                }
                shape.push_str(segment);
                continue;
            };
            shape.push_str("{}");
            if !self.members.iter().any(|member| member.value() == name) {
                return refuse(format!("`{text}`: there is no field `{name}`"));
            }
            if holes.contains(&name) {
                return refuse(format!("`{text}`: `{name}` stands there twice"));
            }
            if self.places.iter().any(|place| place.member.value() == name) {
                return refuse(format!("`{text}`: `{name}` comes from elsewhere by its `#[arg]`"));
            }
            holes.push(name);
        }
        Ok(shape)
    }
}

/// `image/png, image/*` as a list.
fn media_types(text: &Option<LitStr>) -> Result<Vec<String>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let value = text.value();
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+*".contains(c);
    let well = |part: &str| !part.is_empty() && part.chars().all(plain);
    let types = value.split(',').map(|media| media.trim().to_ascii_lowercase()).map(|media| {
        match media.split_once('/') {
            Some((kind, sub)) if well(kind) && well(sub) => Ok(media),
            _ => Err(Error::new(text.span(), format!("`{media}` is no media type"))),
        }
    });
    types.collect()
}

/// A span of time such as `250ms` or `1m30s`, in milliseconds.
pub(crate) fn millis(text: &LitStr) -> Result<u64> {
    let value = text.value();
    let parsed = (|| {
        let (mut total, mut rest) = (0.0, value.as_str());
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(digits);
            let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit);
            let scale = match unit {
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return None,
            };
            total += number.parse::<f64>().ok()? * scale;
            rest = tail;
        }
        (1.0..=86_400e3).contains(&total).then_some(total as u64)
    })();
    parsed.ok_or_else(|| {
        let why = format!("`{value}` is no span of time, as `250ms`, `2.5s`, `1m30s`, up to 24h");
        Error::new(text.span(), why)
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::message::expand;

    fn refused(args: TokenStream) -> String {
        let item = quote!(
            struct A {
                x: u32,
                #[arg(header = "X-Tenant")]
                tenant: String,
            }
        );
        expand(args, item).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said() {
        let table = [
            ("a/{x}", "begins with `/`"),
            ("/", "a segment is a field"),
            ("/a//{x}", "a segment is a field"),
            ("/a/", "a segment is a field"),
            ("/a/{x", "a segment is a field"),
            ("/a?x={x}", "a segment is a field"),
            ("/a/..", "no client asks"),
            ("/a/{z}", "no field `z`"),
            ("/{x}/{x}", "twice"),
            ("/{tenant}", "elsewhere"),
        ];
        for (template, why) in table {
            let error = refused(quote!(get = #template));
            assert!(error.contains(why), "{template}: {error}");
        }
        assert!(refused(quote!(get = "/a/{x}", get = "/a/{x}")).contains("given twice"));
        assert!(refused(quote!(status = 404)).contains("200 to 299"));
        assert!(refused(quote!(consumes = "png")).contains("no media type"));
        assert!(refused(quote!(consumes = "image/png")).contains("there is none"));
        assert!(refused(quote!(stream = u8, etag = "x")).contains("in parts"));
    }

    #[test]
    fn two_methods_may_share_a_template() {
        let item = quote!(
            struct A {
                x: u32,
                #[arg(body)]
                rest: String,
            }
        );
        let args = quote!(put = "/a/{x}", post = "/a/{x}", status = 201, consumes = "image/*");
        let text = expand(args, item).expect("expands").to_string();
        for part in ["\"PUT\"", "\"POST\"", "201", "\"image/*\"", "\"rest\""] {
            assert!(text.contains(part), "{part} in {text}");
        }
        // serde never sees our word.
        assert!(!text.contains("body)"), "{text}");
    }

    #[test]
    fn a_deadline_is_a_span() {
        let read = |text: &str| millis(&LitStr::new(text, proc_macro2::Span::call_site())).ok();
        assert_eq!(read("250ms"), Some(250));
        assert_eq!(read("2.5s"), Some(2_500));
        assert_eq!(read("1m30s"), Some(90_000));
        for wrong in ["", "2", "s", "0s", "2 s", "-1s", "25h", "1d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

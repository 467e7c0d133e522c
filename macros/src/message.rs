//! `#[message]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Field, Fields, Ident, Lit, LitInt, LitStr,
    Meta, Result, Token, Type, ext::IdentExt, parse::Parse, parse::ParseStream, parse_quote,
};

use crate::{
    http,
    types::{Prepared, member_name, prepare, refuse_serde, set, value},
};

/// The longest name of a message, in bytes.
const MAX_NAME: usize = 128;

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let args: Args = syn::parse2(args)?;
    let mut item: DeriveInput = syn::parse2(item)?;
    let shape = "a message is a struct with named fields, or with none: `struct Xy { x: u32 }`";
    let unit = match &item.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(_) => false,
            Fields::Unit => true,
            Fields::Unnamed(fields) => {
                return Err(Error::new_spanned(fields, format!("{shape} (fields need names)")));
            }
        },
        Data::Enum(_) | Data::Union(_) => {
            let why = format!("{shape} (put the enum into a field, and #[data] on it)");
            return Err(Error::new_spanned(&item.ident, why));
        }
    };
    if !item.generics.params.is_empty() {
        let why = "a message has no parameters: its name stands for one type in the whole mesh";
        return Err(Error::new_spanned(&item.generics, why));
    }
    refuse_serde(
        &item.attrs,
        &["transparent", "untagged", "tag", "from", "try_from", "into", "remote"],
    )?;

    let ty = item.ident.clone();
    let name = args.name.clone();
    let name = name.unwrap_or_else(|| LitStr::new(&ty.unraw().to_string(), ty.span()));
    check_name(&name)?;
    if let (Some(reply), Some(_)) = (&args.reply, &args.stream) {
        let why = "a message has one reply (`reply`) or one in parts (`stream`)";
        return Err(Error::new_spanned(reply, why));
    }
    let stream = args.stream.is_some();
    let reply = args.reply.clone().or_else(|| args.stream.clone());
    let reply = reply.unwrap_or_else(|| parse_quote!(()));
    let idempotent = args.idempotent.is_some();
    let fallible = !stream && is_result(&reply);
    let failure = fallible.then(|| {
        quote! {
            const FALLIBLE: bool = true;
            fn is_failure(reply: &Self::Reply) -> bool {
                reply.is_err()
            }
        }
    });
    let renames = item.attrs.iter().any(|attr| {
        attr.path().is_ident("serde")
            && attr.meta.to_token_stream().to_string().contains("rename_all")
    });
    let members: Vec<_> = match &item.data {
        Data::Struct(data) => {
            let named = |field: &Field| Some(member_name(field.ident.as_ref()?, &field.attrs));
            data.fields.iter().filter_map(named).collect()
        }
        Data::Enum(_) | Data::Union(_) => Vec::new(),
    };
    let (item, places) = if unit {
        let data = data_of_unit(&ty, &item.attrs);
        (quote!(#item #data), Vec::new())
    } else {
        let Prepared { defaults, places } = prepare(&mut item)?;
        (quote!(#item #defaults), places)
    };
    let http = http::Declared { routes: &args.routes, places: &places, members: &members, renames };
    let http = http.expand(&args)?;
    let deadline = match &args.deadline {
        Some(text) => {
            let millis = http::millis(text)?;
            quote! {
                const DEADLINE: ::std::option::Option<::std::time::Duration> =
                    ::std::option::Option::Some(::std::time::Duration::from_millis(#millis));
            }
        }
        None => TokenStream::new(),
    };
    Ok(quote! {
        #item

        #[automatically_derived]
        impl ::layercake::__private::Message for #ty {
            type Reply = #reply;
            const NAME: &'static str = #name;
            const IDEMPOTENT: bool = #idempotent;
            const STREAM: bool = #stream;
            #failure
            #deadline
            #http

            fn describe() -> &'static ::std::sync::Arc<::layercake::__private::MessageApi> {
                static API: ::std::sync::OnceLock<
                    ::std::sync::Arc<::layercake::__private::MessageApi>,
                > = ::std::sync::OnceLock::new();
                API.get_or_init(|| {
                    ::std::sync::Arc::new(::layercake::__private::describe::<#ty>())
                })
            }
        }

        #[automatically_derived]
        impl ::layercake::__private::Accepts<#ty> for #ty {}
    })
}

#[derive(Default)]
pub(crate) struct Args {
    reply: Option<Type>,
    pub(crate) stream: Option<Type>,
    name: Option<LitStr>,
    idempotent: Option<()>,
    deadline: Option<LitStr>,
    /// Method and template.
    pub(crate) routes: Vec<(Ident, LitStr)>,
    pub(crate) status: Option<LitInt>,
    pub(crate) consumes: Option<LitStr>,
    pub(crate) produces: Option<LitStr>,
    pub(crate) etag: Option<LitStr>,
}

impl Parse for Args {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut args = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "reply" => set(&mut args.reply, &key, value(input)?)?,
                "stream" => set(&mut args.stream, &key, value(input)?)?,
                "name" => set(&mut args.name, &key, value(input)?)?,
                "idempotent" => set(&mut args.idempotent, &key, ())?,
                "deadline" => set(&mut args.deadline, &key, value(input)?)?,
                "get" | "post" | "put" | "patch" | "delete" => {
                    let template = value(input)?;
                    args.routes.push((key, template));
                }
                "status" => set(&mut args.status, &key, value(input)?)?,
                "consumes" => set(&mut args.consumes, &key, value(input)?)?,
                "produces" => set(&mut args.produces, &key, value(input)?)?,
                "etag" => set(&mut args.etag, &key, value(input)?)?,
                other => {
                    let why = format!(
                        "unknown key `{other}`: there are `reply`, `stream`, `name`, `idempotent`, \
                         `deadline`, `get`, `post`, `put`, `patch`, `delete`, `status`, `consumes`, \
                         `produces`, `etag`"
                    );
                    return Err(Error::new(key.span(), why));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(args)
    }
}

/// Whether a type is called `Result`, in whatever module: the only fallible type that is one by its name.
fn is_result(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Result"),
        Type::Paren(inner) => is_result(&inner.elem),
        Type::Group(inner) => is_result(&inner.elem),
        _ => false,
    }
}

/// A name becomes part of a URL and of metrics as it is.
fn check_name(name: &LitStr) -> Result<()> {
    let text = name.value();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && text.chars().all(plain) && text.len() <= MAX_NAME {
        return Ok(());
    }
    let why = format!(
        "the name `{text}` must start with a letter, have only ASCII letters, digits, `_`, `-` and \
         `.`, and at most {MAX_NAME} of them: give one with #[message(name = \"…\")]"
    );
    Err(Error::new(name.span(), why))
}

/// A struct without fields is an empty object on the wire, not serde's null: it may get fields later
/// and stays readable for those who do not have them, and a query without parameters is one.
fn data_of_unit(ty: &Ident, attrs: &[Attribute]) -> TokenStream {
    let description = attrs.iter().filter_map(doc_line).collect::<Vec<_>>().join("\n");
    let description = description.trim();
    let name = ty.unraw().to_string();
    quote! {
        #[automatically_derived]
        impl ::layercake::__private::serde::Serialize for #ty {
            fn serialize<S: ::layercake::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                ::layercake::__private::serde::Serialize::serialize(
                    &::layercake::__private::Empty {},
                    serializer,
                )
            }
        }

        #[automatically_derived]
        impl<'de> ::layercake::__private::serde::Deserialize<'de> for #ty {
            fn deserialize<D: ::layercake::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                <::layercake::__private::Empty as ::layercake::__private::serde::Deserialize<'de>>
                    ::deserialize(deserializer).map(|_| #ty)
            }
        }

        #[automatically_derived]
        impl ::layercake::__private::schemars::JsonSchema for #ty {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Borrowed(#name)
            }

            fn schema_id() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Borrowed(::std::concat!(::std::module_path!(), "::", #name))
            }

            fn json_schema(
                _: &mut ::layercake::__private::schemars::SchemaGenerator,
            ) -> ::layercake::__private::schemars::Schema {
                ::layercake::__private::Empty::schema(#description)
            }
        }
    }
}

fn doc_line(attr: &Attribute) -> Option<String> {
    match &attr.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: TokenStream, item: TokenStream) -> String {
        expand(args, item).expect_err("refused").to_string()
    }

    #[test]
    fn the_reply_is_nothing_and_the_name_the_types_unless_said() {
        let text = expand(
            quote!(),
            quote!(
                struct Ping;
            ),
        )
        .expect("expands")
        .to_string();
        assert!(
            text.contains(
                &quote!(
                    type Reply = ();
                )
                .to_string()
            ),
            "{text}"
        );
        assert!(
            text.contains(
                &quote!(
                    const NAME: &'static str = "Ping";
                )
                .to_string()
            ),
            "{text}"
        );
        assert!(
            text.contains(
                &quote!(
                    const IDEMPOTENT: bool = false;
                )
                .to_string()
            ),
            "{text}"
        );

        let args = quote!(reply = u64, name = "xy.v1", idempotent);
        let text = expand(
            args,
            quote!(
                struct Xy {
                    x: u32,
                }
            ),
        )
        .expect("expands")
        .to_string();
        assert!(
            text.contains(
                &quote!(
                    type Reply = u64;
                )
                .to_string()
            ),
            "{text}"
        );
        assert!(
            text.contains(
                &quote!(
                    const NAME: &'static str = "xy.v1";
                )
                .to_string()
            ),
            "{text}"
        );
        assert!(
            text.contains(
                &quote!(
                    const IDEMPOTENT: bool = true;
                )
                .to_string()
            ),
            "{text}"
        );
    }

    #[test]
    fn a_reply_that_is_a_result_may_be_a_failure() {
        let expanded = |reply: TokenStream| {
            let item = quote!(
                struct A {}
            );
            expand(quote!(reply = #reply), item).expect("expands").to_string()
        };
        assert!(expanded(quote!(std::result::Result<u8, String>)).contains("FALLIBLE"));
        assert!(expanded(quote!(Result<u8>)).contains("is_err"));
        assert!(!expanded(quote!(Vec<Result<u8, String>>)).contains("FALLIBLE"));
    }

    #[test]
    fn a_message_is_an_object_and_one_type() {
        assert!(
            refused(
                quote!(),
                quote!(
                    struct A(u32);
                )
            )
            .contains("fields need names")
        );
        assert!(
            refused(
                quote!(),
                quote!(
                    enum A {
                        B,
                    }
                )
            )
            .contains("into a field")
        );
        assert!(
            refused(
                quote!(),
                quote!(
                    struct A<T> {
                        x: T,
                    }
                )
            )
            .contains("no parameters")
        );
        let transparent = quote!(
            #[serde(transparent)]
            struct A {
                x: u8,
            }
        );
        assert!(refused(quote!(), transparent).contains("`#[serde(transparent)]`"));
    }

    #[test]
    fn what_is_wrong_with_the_arguments_is_said() {
        let item = quote!(
            struct A {}
        );
        assert!(refused(quote!(replay = u8), item.clone()).contains("unknown key `replay`"));
        assert!(refused(quote!(idempotent, idempotent), item.clone()).contains("said twice"));
        assert!(refused(quote!(reply), item.clone()).contains("expected `=`"));
        for name in ["", "a b", "a/b", "7a", "ä"] {
            let error = refused(quote!(name = #name), item.clone());
            assert!(error.contains("must start with a letter"), "{name}: {error}");
        }
    }
}

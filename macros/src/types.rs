//! `#[data]`, and what `#[message]` shares with it: the derives, `#[arg(…)]` on fields, and the
//! serde attributes that cannot be sent.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Field, Fields, Ident, Lit, LitInt, LitStr,
    Meta, Result, Token, ext::IdentExt, parse::Parse, parse::ParseStream, parse_quote,
    punctuated::Punctuated, spanned::Spanned,
};

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new(args.span(), "#[data] takes no arguments"));
    }
    let mut item: DeriveInput = syn::parse2(item)?;
    let Prepared { defaults, places } = prepare(&mut item)?;
    if let Some(place) = places.first() {
        let why = "`header`, `query` and `body` are for the fields of a #[message]";
        return Err(Error::new(place.member.span(), why));
    }
    Ok(quote! { #item #defaults })
}

/// What [`prepare`] found.
pub(crate) struct Prepared {
    /// The functions that make the defaults.
    pub(crate) defaults: TokenStream,
    /// Fields that come from a part of an HTTP request that they name.
    pub(crate) places: Vec<Place>,
}

/// Where a field comes from in an HTTP request.
pub(crate) struct Place {
    /// What the field is called in JSON.
    pub(crate) member: LitStr,
    pub(crate) part: Part,
}

pub(crate) enum Part {
    Header(LitStr),
    Query,
    Body,
}

/// Puts the derives on the type and turns `#[arg]` into what serde and schemars know.
pub(crate) fn prepare(item: &mut DeriveInput) -> Result<Prepared> {
    refuse_serde(&item.attrs, &[])?;
    let mut defaults = Vec::new();
    let mut places = Vec::new();
    let generic = item.generics.type_params().next().is_some();
    let name = &item.ident;
    match &mut item.data {
        Data::Struct(data) => {
            fields(name, None, &mut data.fields, generic, &mut defaults, &mut places)?;
        }
        Data::Enum(data) => {
            let mut statuses = Vec::new();
            for variant in &mut data.variants {
                if let Some(status) = take_status(&mut variant.attrs)? {
                    statuses.push((member_name(&variant.ident, &variant.attrs), status));
                }
                // serde numbers variants differently on the two sides when one is left out.
                refuse_serde(&variant.attrs, &["skip", "other", "untagged"])?;
                let owner = Some(&variant.ident);
                fields(name, owner, &mut variant.fields, generic, &mut defaults, &mut places)?;
            }
            // schemars moves variants without fields to the front and keeps no trace of the order,
            // on which the compact encoding depends. `layercake_node::schema` reads this.
            let order = data.variants.iter().map(|v| v.ident.unraw().to_string());
            let extend = quote!(#[schemars(extend("x-layercake-variants" = [#(#order),*]))]);
            if !data.variants.is_empty() {
                item.attrs.push(parse_quote!(#extend));
            }
            if !statuses.is_empty() {
                let (variants, statuses): (Vec<_>, Vec<_>) = statuses.into_iter().unzip();
                let table = quote!({ #(#variants: #statuses),* });
                let extend = quote!(#[schemars(extend("x-layercake-status" = #table))]);
                item.attrs.push(parse_quote!(#extend));
            }
        }
        Data::Union(data) => {
            return Err(Error::new(data.union_token.span, "a union cannot be sent: use an enum"));
        }
    }
    // What serde writes then can be read back only where the fields have names.
    if item
        .attrs
        .iter()
        .any(|attr| serde_keys(attr).iter().any(|key| key == "tag" || key == "untagged"))
    {
        item.attrs.push(parse_quote!(#[schemars(extend("x-layercake-json" = true))]));
    }
    // In front, so that the helper attributes come after the derives that know them.
    item.attrs.splice(
        0..0,
        [
            parse_quote!(#[derive(
                ::layercake::__private::serde::Serialize,
                ::layercake::__private::serde::Deserialize,
                ::layercake::__private::schemars::JsonSchema,
            )]),
            parse_quote!(#[serde(crate = "::layercake::__private::serde")]),
            parse_quote!(#[schemars(crate = "::layercake::__private::schemars")]),
        ],
    );
    let defaults = match &defaults[..] {
        [] => TokenStream::new(),
        defaults => quote! {
            #[automatically_derived]
            #[allow(non_snake_case)]
            impl #name { #(#defaults)* }
        },
    };
    Ok(Prepared { defaults, places })
}

/// Takes `#[status(404)]` off a variant.
fn take_status(attrs: &mut Vec<Attribute>) -> Result<Option<LitInt>> {
    let Some(at) = attrs.iter().position(|attr| attr.path().is_ident("status")) else {
        return Ok(None);
    };
    let status: LitInt = attrs.remove(at).parse_args()?;
    match status.base10_parse::<u16>()? {
        400..=599 => Ok(Some(status)),
        _ => Err(Error::new(status.span(), "the status of an error is one of 400 to 599")),
    }
}

/// What a field or variant is called in JSON.
pub(crate) fn member_name(ident: &Ident, attrs: &[Attribute]) -> LitStr {
    let renamed = attrs.iter().filter(|attr| attr.path().is_ident("serde")).find_map(|attr| {
        let list = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
        list.into_iter().find_map(|meta| match meta {
            Meta::NameValue(pair) if pair.path.is_ident("rename") => match pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) => Some(name),
                _ => None,
            },
            _ => None,
        })
    });
    renamed.unwrap_or_else(|| LitStr::new(&ident.unraw().to_string(), ident.span()))
}

fn fields(
    owner: &Ident,
    variant: Option<&Ident>,
    fields: &mut Fields,
    generic: bool,
    defaults: &mut Vec<TokenStream>,
    places: &mut Vec<Place>,
) -> Result<()> {
    for field in fields {
        refuse_serde(&field.attrs, &[])?;
        let Some(arg) = take_arg(field)? else { continue };
        let Some(name) = &field.ident else {
            return Err(Error::new(field.span(), "#[arg] goes on a named field"));
        };
        if let Some(part) = arg.part {
            let member = member_name(name, &field.attrs);
            places.push(Place { member, part });
        }
        match &arg.default {
            Some(None) => field.attrs.push(parse_quote!(#[serde(default)])),
            Some(Some(value)) => {
                if generic {
                    let why = "a default needs a type without parameters: use #[serde(default)]";
                    return Err(Error::new(value.span(), why));
                }
                let variant = variant.map(|v| format!("{}_", v.unraw())).unwrap_or_default();
                let function = format_ident!("__layercake_default_{variant}{}", name.unraw());
                let path = format!("{owner}::{function}");
                let ty = &field.ty;
                let value = match value {
                    // A text stands for a `String` too.
                    Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
                        quote!(::std::convert::Into::into(#text))
                    }
                    other => other.to_token_stream(),
                };
                defaults.push(quote!(fn #function() -> #ty { #value }));
                field.attrs.push(parse_quote!(#[serde(default = #path)]));
            }
            None => {}
        }
        let range =
            [("min", &arg.min), ("max", &arg.max)].into_iter().filter_map(|(key, value)| {
                let key = format_ident!("{key}");
                value.as_ref().map(|value| quote!(#key = #value))
            });
        if arg.min.is_some() || arg.max.is_some() {
            field.attrs.push(parse_quote!(#[schemars(range(#(#range),*))]));
        }
    }
    Ok(())
}

/// What `#[arg(…)]` says. `default` is `Some(None)` where it stands without a value.
#[derive(Default)]
struct Arg {
    default: Option<Option<Expr>>,
    min: Option<Expr>,
    max: Option<Expr>,
    part: Option<Part>,
}

impl Parse for Arg {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arg = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "default" => {
                    let value = if input.peek(Token![=]) { Some(value(input)?) } else { None };
                    set(&mut arg.default, &key, value)?;
                }
                "min" => set(&mut arg.min, &key, value(input)?)?,
                "max" => set(&mut arg.max, &key, value(input)?)?,
                "header" | "query" | "body" => {
                    let part = match key.to_string().as_str() {
                        "header" => Part::Header(header(value(input)?)?),
                        "query" => Part::Query,
                        _ => Part::Body,
                    };
                    if arg.part.replace(part).is_some() {
                        let why = "a field comes from one place: `header`, `query` or `body`";
                        return Err(Error::new(key.span(), why));
                    }
                }
                other => {
                    let why = format!(
                        "unknown key `{other}`: there are `default`, `min`, `max`, `header`, \
                         `query`, `body`"
                    );
                    return Err(Error::new(key.span(), why));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arg)
    }
}

/// A header's name: as it is compared, in lower case.
fn header(name: LitStr) -> Result<LitStr> {
    let text = name.value().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return Err(Error::new(name.span(), format!("`{text}` is no name of a header")));
    }
    Ok(LitStr::new(&text, name.span()))
}

/// Reads `= VALUE`.
pub(crate) fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Sets what may be said once.
pub(crate) fn set<T>(slot: &mut Option<T>, key: &Ident, value: T) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(Error::new(key.span(), format!("`{key}` is said twice")));
    }
    Ok(())
}

fn take_arg(field: &mut Field) -> Result<Option<Arg>> {
    let Some(at) = field.attrs.iter().position(|a| a.path().is_ident("arg")) else {
        return Ok(None);
    };
    let arg = field.attrs.remove(at).parse_args()?;
    match field.attrs.iter().find(|a| a.path().is_ident("arg")) {
        Some(second) => Err(Error::new(second.span(), "one #[arg(…)] per field")),
        None => Ok(Some(arg)),
    }
}

/// What the compact encoding, which writes neither names nor counts of fields, cannot carry, and
/// what of it no schema shows. (`tag` and `untagged` show: such types travel as JSON.)
const UNSENDABLE: [&str; 4] =
    ["flatten", "skip_serializing_if", "skip_serializing", "skip_deserializing"];

/// Refuses serde attributes that would break a type on the wire.
pub(crate) fn refuse_serde(attrs: &[Attribute], more: &[&str]) -> Result<()> {
    for attr in attrs {
        for key in serde_keys(attr) {
            if UNSENDABLE.contains(&key.to_string().as_str()) || more.iter().any(|m| key == m) {
                let why = format!("a type with `#[serde({key})]` here cannot be sent compactly");
                return Err(Error::new(key.span(), why));
            }
        }
    }
    Ok(())
}

/// The keys in `#[serde(…)]`. What does not parse is reported by serde itself.
fn serde_keys(attr: &Attribute) -> Vec<Ident> {
    if !attr.path().is_ident("serde") {
        return Vec::new();
    }
    let list = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    list.into_iter().flatten().filter_map(|meta| meta.path().get_ident().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(item: TokenStream) -> String {
        expand(quote!(), item).expect_err("refused").to_string()
    }

    #[test]
    fn an_argument_becomes_a_default_and_a_range() {
        let expanded = expand(
            quote!(),
            quote!(
                struct A {
                    #[arg(default = 8, min = 1)]
                    x: u32,
                }
            ),
        );
        let text = expanded.expect("expands").to_string();
        let default = quote!(#[serde(default = "A::__layercake_default_x")]).to_string();
        assert!(text.contains(&default), "{text}");
        assert!(text.contains(&quote!(#[schemars(range(min = 1))]).to_string()), "{text}");
        assert!(
            text.contains(
                &quote!(
                    fn __layercake_default_x() -> u32 {
                        8
                    }
                )
                .to_string()
            )
        );
        assert!(!text.contains("Debug") && !text.contains("Clone"), "{text}");
    }

    #[test]
    fn what_is_wrong_with_an_argument_is_said() {
        let unknown = refused(quote!(
            struct A {
                #[arg(defualt = 8)]
                x: u32,
            }
        ));
        assert!(unknown.contains("unknown key `defualt`: there are `default`"), "{unknown}");
        assert!(
            refused(quote!(
                struct A {
                    #[arg(min = 1, min = 2)]
                    x: u32,
                }
            ))
            .contains("twice")
        );
        assert!(
            refused(quote!(
                struct A {
                    #[arg(min)]
                    x: u32,
                }
            ))
            .contains("expected `=`")
        );
        assert!(
            refused(quote!(
                struct A(#[arg(min = 1)] u32);
            ))
            .contains("named field")
        );
        assert!(
            refused(quote!(
                struct A<T> {
                    #[arg(default = 8)]
                    x: T,
                }
            ))
            .contains("parameters")
        );
    }

    #[test]
    fn what_cannot_be_sent_compactly_is_refused() {
        let flatten = refused(quote!(
            struct A {
                #[serde(default, flatten)]
                x: B,
            }
        ));
        assert!(flatten.contains("`#[serde(flatten)]`"), "{flatten}");
        let skip = quote!(
            struct A {
                #[serde(skip_serializing_if = "Option::is_none")]
                x: B,
            }
        );
        assert!(refused(skip).contains("skip_serializing_if"));
        assert!(
            refused(quote!(
                enum A {
                    #[serde(skip)]
                    B,
                    C,
                }
            ))
            .contains("`#[serde(skip)]`")
        );
        assert!(refused(quote!(union A { x: u8 })).contains("use an enum"));
        // Of these, the schema says that they are JSON.
        let tagged = expand(
            quote!(),
            quote!(
                #[serde(tag = "t")]
                enum A {
                    B,
                }
            ),
        );
        assert!(tagged.expect("expands").to_string().contains("x-layercake-json"));
        // A field that is left out on both sides does no harm.
        assert!(
            expand(
                quote!(),
                quote!(
                    struct A {
                        #[serde(skip)]
                        x: u8,
                    }
                )
            )
            .is_ok()
        );
    }
}

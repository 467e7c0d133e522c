//! `#[mail]`: an enum of the messages that a function's inbox holds.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Fields, ItemEnum, Path, Result, spanned::Spanned};

use crate::actor::is_named;

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new(args.span(), "#[mail] takes no arguments"));
    }
    let item: ItemEnum = syn::parse2(item)?;
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "the messages of an inbox have no parameters",
        ));
    }
    let shape = "each variant holds one message: `Add(Add)`, or `Other(Unknown)` for all others";
    let (mut variants, mut unknown) = (Vec::new(), None);
    for variant in &item.variants {
        let field = match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => &fields.unnamed[0],
            _ => return Err(Error::new_spanned(variant, shape)),
        };
        if is_named(&field.ty, "Unknown") {
            if unknown.replace(&variant.ident).is_some() {
                return Err(Error::new_spanned(variant, "a second variant for all others"));
            }
            continue;
        }
        let ty = &field.ty;
        if variants.iter().any(|(_, other, _)| *other == ty) {
            return Err(Error::new_spanned(variant, "a second variant of that message"));
        }
        variants.push((&variant.ident, ty, &variant.attrs));
    }
    if variants.is_empty() {
        return Err(Error::new_spanned(&item.ident, shape));
    }
    let lib: Path = syn::parse_quote!(::layercake::__private);
    let (vis, name, attrs) = (&item.vis, &item.ident, &item.attrs);
    let text = name.to_string();
    let idents: Vec<_> = variants.iter().map(|(ident, ..)| *ident).collect();
    let types: Vec<_> = variants.iter().map(|(_, ty, _)| *ty).collect();
    let docs: Vec<_> = variants.iter().map(|(.., attrs)| *attrs).collect();
    let own = item.variants.iter().find(|variant| Some(&variant.ident) == unknown);
    let own_docs = own.iter().flat_map(|variant| &variant.attrs);
    let of_unknown = unknown.map(|ident| quote!(#(#own_docs)* #ident(#lib::Unknown),));
    let mail_unknown = unknown.map(|_| quote!(__Unknown(#lib::Parcel),));
    let begin_unknown = unknown.map(|ident| {
        quote!(__LayercakeMail::__Unknown(message) => {
            ::std::option::Option::Some(#name::#ident(message.into_unknown()))
        })
    });
    let back_unknown = unknown.map(|ident| {
        quote!(#name::#ident(message) => {
            __LayercakeMail::__Unknown(message.into_parcel())
        })
    });
    let takes_unknown = unknown.is_some();
    let open_other = match unknown {
        Some(_) => quote! {
            ::std::option::Option::Some(__LayercakeMail::__Unknown(parcel))
        },
        None => quote!(parcel.refuse(); ::std::option::Option::None),
    };
    Ok(quote! {
        #(#attrs)*
        #vis enum #name {
            #(#(#docs)* #idents(#types, #lib::Reply<<#types as #lib::Message>::Reply>),)*
            #of_unknown
        }

        const _: () = {
            #[doc(hidden)]
            #[allow(missing_docs, private_interfaces, unreachable_pub, clippy::large_enum_variant)]
            pub enum __LayercakeMail { #(#idents(#lib::Packet<#types>),)* #mail_unknown }

            #[automatically_derived]
            impl #lib::Mail for __LayercakeMail {
                const TAKES_UNKNOWN: bool = #takes_unknown;

                fn api() -> #lib::Api {
                    let messages = ::std::vec![
                        #(::std::sync::Arc::clone(<#types as #lib::Message>::describe()),)*
                    ];
                    #lib::Api { actor: ::std::string::String::from(#text), messages }
                }

                fn accept(
                    packet: &mut dyn ::std::any::Any,
                ) -> ::std::option::Option<Self> {
                    #(
                        if let ::std::option::Option::Some(slot) =
                            packet.downcast_mut::<::std::option::Option<#lib::Packet<#types>>>()
                        {
                            return slot.take().map(__LayercakeMail::#idents);
                        }
                    )*
                    ::std::option::Option::None
                }

                fn open(parcel: #lib::Parcel) -> ::std::option::Option<Self> {
                    #(
                        if parcel.tag() == <#types as #lib::Message>::TAG {
                            return parcel.unpack::<#types>().map(__LayercakeMail::#idents);
                        }
                    )*
                    #open_other
                }
            }

            #[automatically_derived]
            impl #lib::Letters for #name {
                type Mail = __LayercakeMail;
                type Item = Self;

                fn begin(mail: __LayercakeMail) -> ::std::option::Option<Self> {
                    match mail {
                        #(
                            __LayercakeMail::#idents(packet) => packet
                                .into_parts()
                                .map(|(message, reply)| #name::#idents(message, reply)),
                        )*
                        #begin_unknown
                    }
                }

                fn put_back(item: Self) -> __LayercakeMail {
                    match item {
                        #(
                            #name::#idents(message, reply) => __LayercakeMail::#idents(
                                #lib::Packet::from_parts(message, reply),
                            ),
                        )*
                        #back_unknown
                    }
                }
            }

            #(
                #[automatically_derived]
                impl #lib::Accepts<#types> for #name {}
                const _: () = ::std::assert!(
                    !<#types as #lib::Message>::STREAM,
                    "an inbox answers in one piece: give the message one reply",
                );
            )*
        };
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_mail_is_said() {
        let refused = |item| expand(quote!(), item).expect_err("refused").to_string();
        assert!(
            refused(quote!(
                enum M {
                    A,
                }
            ))
            .contains("each variant holds one message")
        );
        assert!(
            refused(quote!(
                enum M {
                    A(A, B),
                }
            ))
            .contains("each variant holds one message")
        );
        assert!(
            refused(quote!(
                enum M {
                    A(A),
                    B(A),
                }
            ))
            .contains("a second variant of that")
        );
        assert!(
            refused(quote!(
                enum M<T> {
                    A(T),
                }
            ))
            .contains("no parameters")
        );
        assert!(
            refused(quote!(
                enum M {
                    A(Unknown),
                }
            ))
            .contains("each variant holds one")
        );
        assert!(
            expand(
                quote!(),
                quote!(
                    enum M {
                        A(A),
                        B(B),
                        Other(Unknown),
                    }
                )
            )
            .is_ok()
        );
    }
}

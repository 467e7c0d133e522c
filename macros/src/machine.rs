//! `#[states]` and `#[machine]`: an actor whose handlers are transitions between states.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Error, FnArg, Ident, ImplItem, ImplItemFn, ItemEnum, ItemImpl, LitStr, Path, Result, Token,
    Type, ext::IdentExt, parse::Parse, parse::ParseStream, punctuated::Punctuated,
    spanned::Spanned,
};

use crate::actor::{is_mut_reference, name_of, take_mark};

/// `#[states]`: each variant becomes a struct of its own, and the enum holds them.
pub(crate) fn states(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new(args.span(), "#[states] takes no arguments"));
    }
    let item: ItemEnum = syn::parse2(item)?;
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "the states of a machine have no parameters",
        ));
    }
    if item.variants.is_empty() {
        return Err(Error::new_spanned(&item.ident, "a machine has at least one state"));
    }
    let lib: Path = syn::parse_quote!(::layercake::__private);
    let (vis, name, attrs) = (&item.vis, &item.ident, &item.attrs);
    let structs = item.variants.iter().map(|variant| {
        let (ident, attrs) = (&variant.ident, &variant.attrs);
        match &variant.fields {
            syn::Fields::Unit => quote!(#(#attrs)* #vis struct #ident;),
            syn::Fields::Unnamed(fields) => {
                let fields = fields.unnamed.iter().map(|field| quote!(#vis #field));
                quote!(#(#attrs)* #vis struct #ident(#(#fields),*);)
            }
            syn::Fields::Named(fields) => {
                let fields = fields.named.iter().map(|field| {
                    let (attrs, ident, ty) = (&field.attrs, &field.ident, &field.ty);
                    quote!(#(#attrs)* #vis #ident: #ty)
                });
                quote!(#(#attrs)* #vis struct #ident { #(#fields),* })
            }
        }
    });
    let idents: Vec<_> = item.variants.iter().map(|variant| &variant.ident).collect();
    let texts = idents.iter().map(|ident| ident.unraw().to_string());
    Ok(quote! {
        #(#structs)*

        #(#attrs)*
        #vis enum #name {
            #(#[allow(missing_docs)] #idents(#idents),)*
            #[doc(hidden)]
            __Moved,
        }

        #(
            #[automatically_derived]
            impl ::std::convert::From<#idents> for #name {
                fn from(state: #idents) -> Self {
                    Self::#idents(state)
                }
            }
        )*

        #[automatically_derived]
        impl #lib::Machine for #name {
            fn take(&mut self) -> Self {
                ::std::mem::replace(self, Self::__Moved)
            }

            fn state(&self) -> &'static str {
                match self {
                    #(Self::#idents(_) => #texts,)*
                    Self::__Moved => "",
                }
            }
        }
    })
}

/// `defer(Locked: Push, Opened: Lock)`: which state puts which message off.
struct Defer {
    state: Ident,
    message: Type,
}

impl Parse for Defer {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let state = input.parse()?;
        input.parse::<Token![:]>()?;
        Ok(Self { state, message: input.parse()? })
    }
}

#[derive(Default)]
struct Args {
    name: Option<LitStr>,
    defer: Vec<Defer>,
}

impl Parse for Args {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut args = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "name" => crate::types::set(&mut args.name, &key, crate::types::value(input)?)?,
                "defer" => {
                    let content;
                    syn::parenthesized!(content in input);
                    let pairs = Punctuated::<Defer, Token![,]>::parse_terminated(&content)?;
                    args.defer.extend(pairs);
                }
                other => {
                    let why = format!("unknown key `{other}`: there are `name`, `defer`");
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

/// What one state does with one message.
struct Transition {
    method: Ident,
    state: Type,
    /// The variant of that state.
    variant: Ident,
    message: Type,
    takes_ctx: bool,
}

fn transition(function: &ImplItemFn) -> Result<Option<Transition>> {
    let sig = &function.sig;
    if sig.asyncness.is_none() || sig.receiver().is_some() || !sig.generics.params.is_empty() {
        return Ok(None);
    }
    let types: Vec<_> = sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let well_formed = (2..=3).contains(&types.len())
        && matches!(types[0], Type::Path(_))
        && matches!(types[1], Type::Path(_))
        && types.get(2).is_none_or(|ty| is_mut_reference(ty));
    if !well_formed {
        let why = "a transition is `async fn name(state: State, message: M) -> (Reply, NextState)`, \
                   or #[helper] if it is none";
        return Err(Error::new_spanned(sig, why));
    }
    let name = name_of(types[0])?;
    Ok(Some(Transition {
        method: sig.ident.clone(),
        state: types[0].clone(),
        variant: Ident::new(&name.value(), name.span()),
        message: types[1].clone(),
        takes_ctx: types.len() == 3,
    }))
}

/// `#[machine]`.
pub(crate) fn machine(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let args: Args = syn::parse2(args)?;
    let mut item: ItemImpl = syn::parse2(item)?;
    if item.trait_.is_some() || !item.generics.params.is_empty() {
        let why = "#[machine] goes on the `impl` of the enum of states, which has no parameters";
        return Err(Error::new_spanned(&item.self_ty, why));
    }
    let mut transitions: Vec<Transition> = Vec::new();
    for function in &mut item.items {
        let ImplItem::Fn(function) = function else { continue };
        if !take_mark(function, "helper")
            && let Some(new) = transition(function)?
        {
            let same =
                |other: &Transition| other.state == new.state && other.message == new.message;
            if transitions.iter().any(same) {
                let why = "a second transition of that message from that state";
                return Err(Error::new_spanned(&function.sig, why));
            }
            transitions.push(new);
        }
    }
    if transitions.is_empty() {
        let why = "no transitions here: one looks like \
                   `async fn name(state: State, message: M) -> (Reply, NextState)`";
        return Err(Error::new_spanned(&item.self_ty, why));
    }
    let mut messages: Vec<&Type> = Vec::new();
    let deferred = args.defer.iter().map(|defer| &defer.message);
    for message in transitions.iter().map(|transition| &transition.message).chain(deferred) {
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    for Defer { state, message } in &args.defer {
        let handled = |t: &Transition| t.variant == *state && t.message == *message;
        if transitions.iter().any(handled) {
            let why = format!("`{state}` has a transition for `{}`", message.to_token_stream());
            return Err(Error::new_spanned(state, why));
        }
        if !transitions.iter().any(|t| t.message == *message) {
            let why =
                format!("no state takes `{}`: it would wait for ever", message.to_token_stream());
            return Err(Error::new_spanned(message, why));
        }
    }
    let name = match args.name {
        Some(name) => name,
        None => name_of(&item.self_ty)?,
    };
    let generated = generate(&item.self_ty, &name, &transitions, &args.defer, &messages);
    Ok(quote! { #item #generated })
}

fn generate(
    this: &Type,
    name: &LitStr,
    transitions: &[Transition],
    defer: &[Defer],
    messages: &[&Type],
) -> TokenStream {
    let lib: Path = syn::parse_quote!(::layercake::__private);
    let kinds: Vec<_> = (0..messages.len()).map(|at| format_ident!("M{at}")).collect();
    let arms = messages.iter().zip(&kinds).map(|(message, kind)| {
        let taken = transitions.iter().filter(|t| t.message == **message).map(|transition| {
            let Transition { method, variant, takes_ctx, .. } = transition;
            let ctx = takes_ctx.then(|| quote!(ctx));
            let span = method.span().resolved_at(proc_macro2::Span::call_site());
            let next = quote_spanned! {span=>
                let (answer, next) = <#this>::#method(state, message, #ctx).await;
                *self = ::std::convert::Into::<#this>::into(next);
                #lib::Reply::send(reply, answer);
            };
            quote! {
                Self::#variant(state) => match packet.begin() {
                    ::std::option::Option::Some((message, reply)) => {
                        #next
                        ctx.__changed(before, #lib::Machine::state(self));
                    }
                    ::std::option::Option::None => *self = Self::#variant(state),
                },
            }
        });
        let put_off =
            defer.iter().filter(|d| d.message == **message).map(|Defer { state, .. }| {
                quote! {
                    state @ Self::#state(_) => {
                        *self = state;
                        ctx.__defer(packet, __LayercakeMail::#kind);
                    }
                }
            });
        quote! {
            __LayercakeMail::#kind(packet) => match #lib::Machine::take(self) {
                #(#taken)*
                #(#put_off)*
                #[allow(unreachable_patterns)]
                state => {
                    *self = state;
                    ctx.__refuse(packet, before);
                }
            },
        }
    });
    quote! {
        const _: () = {
            #[doc(hidden)]
            #[allow(missing_docs, private_interfaces, unreachable_pub, clippy::large_enum_variant)]
            pub enum __LayercakeMail { #(#kinds(#lib::Packet<#messages>),)* }

            #[automatically_derived]
            impl #lib::Mail for __LayercakeMail {
                fn api() -> #lib::Api {
                    let messages = ::std::vec![
                        #(::std::sync::Arc::clone(<#messages as #lib::Message>::describe()),)*
                    ];
                    #lib::Api { actor: ::std::string::String::from(#name), messages }
                }

                fn accept(
                    packet: &mut dyn ::std::any::Any,
                ) -> ::std::option::Option<Self> {
                    #(
                        if let ::std::option::Option::Some(slot) =
                            packet.downcast_mut::<::std::option::Option<#lib::Packet<#messages>>>()
                        {
                            return slot.take().map(__LayercakeMail::#kinds);
                        }
                    )*
                    ::std::option::Option::None
                }

                fn open(parcel: #lib::Parcel) -> ::std::option::Option<Self> {
                    #(
                        if parcel.tag() == <#messages as #lib::Message>::TAG {
                            return parcel.unpack::<#messages>().map(__LayercakeMail::#kinds);
                        }
                    )*
                    parcel.refuse();
                    ::std::option::Option::None
                }
            }

            #[automatically_derived]
            impl #lib::Actor for #this {
                const NAME: &'static str = #name;
                type Mail = __LayercakeMail;
                type Output = ();

                async fn handle(&mut self, mail: Self::Mail, ctx: &mut #lib::Context<Self>) {
                    let before = #lib::Machine::state(self);
                    match mail { #(#arms)* }
                }
            }

            #(
                #[automatically_derived]
                impl #lib::Accepts<#messages> for #this {}
                const _: () = ::std::assert!(
                    !<#messages as #lib::Message>::STREAM,
                    "a machine answers in one piece: give the message one reply",
                );
            )*
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_machine_is_said() {
        let ok = quote!(
            async fn open(state: Closed, m: Open) -> ((), Opened) {}
        );
        let refused = |args, item| machine(args, item).expect_err("refused").to_string();
        assert!(refused(quote!(), quote!(impl Door {})).contains("no transitions here"));
        assert!(refused(quote!(x), quote!(impl Door { #ok })).contains("unknown key `x`"));
        let twice = quote!(impl Door { #ok async fn again(s: Closed, m: Open) -> ((), Opened) {} });
        assert!(refused(quote!(), twice).contains("a second transition"));
        let both = refused(quote!(defer(Closed: Open)), quote!(impl Door { #ok }));
        assert!(both.contains("has a transition"), "{both}");
        let never = refused(quote!(defer(Closed: Shut)), quote!(impl Door { #ok }));
        assert!(never.contains("wait for ever"), "{never}");
        let shape = refused(quote!(), quote!(impl Door { async fn x(s: Closed) -> u8 { 0 } }));
        assert!(shape.contains("NextState"), "{shape}");
    }

    #[test]
    fn what_is_wrong_with_states_is_said() {
        let refused = |item| states(quote!(), item).expect_err("refused").to_string();
        assert!(
            refused(quote!(
                enum D {}
            ))
            .contains("at least one state")
        );
        assert!(
            refused(quote!(
                enum D<T> {
                    A(T),
                }
            ))
            .contains("no parameters")
        );
    }
}

//! `#[actor]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Attribute, Error, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, LitStr, Path, Result,
    ReturnType, Token, Type, ext::IdentExt, parse::Parse, parse::ParseStream, spanned::Spanned,
};

use crate::types::{set, value};

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let args: Args = syn::parse2(args)?;
    let mut item: ItemImpl = syn::parse2(item)?;
    if let Some((_, path, _)) = &item.trait_ {
        let why = "#[actor] goes on the type's own `impl Worker { … }`, not on that of a trait";
        return Err(Error::new_spanned(path, why));
    }
    if let Some(lifetime) = item.generics.lifetimes().next() {
        return Err(Error::new_spanned(
            lifetime,
            "an actor borrows nothing: it outlives its maker",
        ));
    }
    let methods = Methods::of(&mut item)?;
    let name = match args.name {
        Some(name) => name,
        None => name_of(&item.self_ty)?,
    };
    let entry = args.no_entry.is_none() && item.generics.params.is_empty();
    let output = args.output.unwrap_or_else(|| syn::parse_quote!(()));
    let generated = generate(&item, &methods, &name, &output, entry && args.args.is_none());
    let program = match &args.args {
        Some(ty) if item.generics.params.is_empty() => Some(program(&item.self_ty, ty, &output)),
        Some(ty) => return Err(Error::new_spanned(ty, "a program has no type parameters")),
        None => None,
    };
    Ok(quote! { #item #generated #program })
}

#[derive(Default)]
struct Args {
    name: Option<LitStr>,
    output: Option<Type>,
    args: Option<Type>,
    no_entry: Option<()>,
}

impl Parse for Args {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut args = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "name" => set(&mut args.name, &key, value(input)?)?,
                "output" => set(&mut args.output, &key, value(input)?)?,
                "args" => set(&mut args.args, &key, value(input)?)?,
                "no_entry" => set(&mut args.no_entry, &key, ())?,
                other => {
                    let why = format!(
                        "unknown key `{other}`: there are `name`, `output`, `args`, \
                                       `no_entry`"
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

/// What makes an actor that is made from arguments a program.
fn program(this: &Type, args: &Type, output: &Type) -> TokenStream {
    let lib: Path = syn::parse_quote!(::layercake::__private);
    quote! {
        #[automatically_derived]
        impl #lib::FromArgs for #this {
            type FromArgs = #args;

            fn from_args(args: #args) -> Self {
                Self::new(args)
            }
        }

        #[automatically_derived]
        impl #lib::Program for #this {
            type Args = #args;
            type Takes = Self;
            type Output = #output;

            fn name() -> &'static str {
                ::std::any::type_name::<Self>()
            }
        }

        const _: () = {
            #lib::inventory::submit! { #lib::Entry::of_args::<#this>() }
        };
    }
}

/// The functions of the block that mean something.
#[derive(Default)]
struct Methods {
    handlers: Vec<Handler>,
    unknown: Option<Hook>,
    started: Option<Hook>,
    stopping: Option<Hook>,
    stopped: Option<Hook>,
}

/// How a handler answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// By what it returns.
    Returns,
    /// By what it returns, and is dropped when nobody waits any more.
    Cancelled,
    /// By the slot that it takes.
    Later,
    /// In parts, by the outlet that it is lent.
    InParts,
    /// In parts, by the outlet that it takes.
    InPartsLater,
}

/// What a handler takes behind its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    Ctx,
    /// The reply or the outlet.
    Answer,
}

struct Handler {
    method: Ident,
    message: Type,
    extras: Vec<Extra>,
    answers: Answers,
    cfgs: Vec<Attribute>,
    /// Where a reply of the wrong type is reported.
    reply: Span,
}

struct Hook {
    method: Ident,
    takes_ctx: bool,
    cfgs: Vec<Attribute>,
}

impl Methods {
    fn of(item: &mut ItemImpl) -> Result<Self> {
        let mut methods = Self::default();
        for item in &mut item.items {
            let ImplItem::Fn(function) = item else { continue };
            let cancel = take_mark(function, "cancel");
            if take_mark(function, "helper") {
                continue;
            }
            match function.sig.ident.to_string().as_str() {
                "started" => methods.started = Some(hook(function, true)?),
                "stopping" => methods.stopping = Some(hook(function, true)?),
                "stopped" => methods.stopped = Some(hook(function, false)?),
                "unknown" => methods.unknown = Some(unknown(function)?),
                _ => methods.handlers.extend(handler(function, cancel)?),
            }
        }
        for (at, handler) in methods.handlers.iter().enumerate() {
            let same = |other: &&Handler| other.message == handler.message && !other.has_cfg();
            if !handler.has_cfg() && methods.handlers[..at].iter().any(|other| same(&other)) {
                let why = format!("a second handler of `{}`", handler.message.to_token_stream());
                return Err(Error::new_spanned(&handler.message, why));
            }
        }
        let idle = methods.handlers.is_empty() && methods.unknown.is_none();
        if idle && methods.started.is_none() {
            let why = "no handlers here: one looks like \
                       `async fn name(&mut self, message: M) -> Reply`";
            return Err(Error::new_spanned(&item.self_ty, why));
        }
        Ok(methods)
    }
}

impl Handler {
    fn has_cfg(&self) -> bool {
        !self.cfgs.is_empty()
    }

    /// How its packet is begun, and what is done with `message` and `reply`.
    fn body(&self, lib: &Path) -> (TokenStream, TokenStream) {
        let Self { method, message, extras, answers, reply, .. } = self;
        let answer = match answers {
            Answers::InParts => quote!(&mut reply),
            _ => quote!(reply),
        };
        let extras = extras.iter().map(|extra| match extra {
            Extra::Ctx => quote!(ctx),
            Extra::Answer => answer.clone(),
        });
        let call = quote!(Self::#method(self, message, #(#extras),*));
        let span = resolved_here(*reply);
        let in_parts = matches!(answers, Answers::InParts | Answers::InPartsLater);
        let why = if in_parts {
            "a handler with an `Outlet` is for a message with `#[message(stream = …)]`"
        } else {
            "the message is answered in parts: take `out: &mut Outlet<…>`"
        };
        let check = quote_spanned! {resolved_here(message.span())=>
            const { ::std::assert!(<#message as #lib::Message>::STREAM == #in_parts, #why) };
        };
        let send = quote_spanned!(span=> #lib::Reply::send(reply, answer));
        let (begin, body) = match answers {
            Answers::Returns => (quote!(begin), quote!(let answer = #call.await; #send;)),
            Answers::Cancelled => (
                quote!(begin),
                quote! {
                    let answer = #lib::while_wanted(&reply, #call).await;
                    if let ::std::option::Option::Some(answer) = answer { #send; }
                },
            ),
            Answers::Later => (quote!(begin), quote!(let _ = #call.await;)),
            Answers::InPartsLater => (quote!(begin_stream), quote!(let _ = #call.await;)),
            Answers::InParts => (
                quote!(begin_stream),
                quote! {
                    let mut reply = reply;
                    let _ = #call.await;
                    #lib::Outlet::finish(reply);
                },
            ),
        };
        (begin, quote!(#check #body))
    }
}

/// The handler that a function is, if it is one.
fn handler(function: &ImplItemFn, cancel: bool) -> Result<Option<Handler>> {
    let sig = &function.sig;
    if sig.asyncness.is_none() || !sig.generics.params.is_empty() || !takes_mut_self(function) {
        return Ok(None);
    }
    let mut types = sig.inputs.iter().skip(1).filter_map(|input| match input {
        FnArg::Typed(typed) => Some(&*typed.ty),
        FnArg::Receiver(_) => None,
    });
    let plain = |ty: &&Type| !matches!(ty, Type::Reference(_) | Type::ImplTrait(_));
    let Some(message) = types.next().filter(plain) else { return Ok(None) };
    let (mut extras, mut answers) = (Vec::new(), Answers::Returns);
    for ty in types {
        let (extra, how) = match ty {
            Type::Reference(reference) if reference.mutability.is_none() => return Ok(None),
            Type::Reference(reference) if is_named(&reference.elem, "Outlet") => {
                (Extra::Answer, Some(Answers::InParts))
            }
            Type::Reference(_) => (Extra::Ctx, None),
            ty if is_named(ty, "Reply") => (Extra::Answer, Some(Answers::Later)),
            ty if is_named(ty, "Outlet") => (Extra::Answer, Some(Answers::InPartsLater)),
            _ => return Ok(None),
        };
        if extras.contains(&extra) {
            return Ok(None);
        }
        extras.push(extra);
        answers = how.unwrap_or(answers);
    }
    if cancel {
        if answers != Answers::Returns {
            let why = "#[cancel] is for a handler that answers by what it returns";
            return Err(Error::new_spanned(sig, why));
        }
        answers = Answers::Cancelled;
    }
    Ok(Some(Handler {
        method: sig.ident.clone(),
        message: message.clone(),
        extras,
        answers,
        cfgs: cfgs(&function.attrs),
        reply: match &sig.output {
            ReturnType::Default => sig.ident.span(),
            ReturnType::Type(_, ty) => ty.span(),
        },
    }))
}

/// Whether a type is a path that ends in a name.
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == name))
}

/// The handler of what no other handler is for.
fn unknown(function: &ImplItemFn) -> Result<Hook> {
    let sig = &function.sig;
    let types: Vec<_> = sig.inputs.iter().skip(1).collect();
    let well_formed = sig.asyncness.is_some()
        && sig.generics.params.is_empty()
        && takes_mut_self(function)
        && matches!(sig.output, ReturnType::Default)
        && matches!(types.first(), Some(FnArg::Typed(ty)) if is_named(&ty.ty, "Unknown"))
        && match types.get(1) {
            None => true,
            Some(FnArg::Typed(ctx)) => is_mut_reference(&ctx.ty),
            Some(FnArg::Receiver(_)) => false,
        }
        && types.len() <= 2;
    if !well_formed {
        let why = "write `async fn unknown(&mut self, message: Unknown, ctx: &mut Context<Self>)`, or \
                   #[helper] if it is not the handler of unknown messages";
        return Err(Error::new_spanned(sig, why));
    }
    let cfgs = cfgs(&function.attrs);
    Ok(Hook { method: sig.ident.clone(), takes_ctx: types.len() == 2, cfgs })
}

fn hook(function: &ImplItemFn, may_take_ctx: bool) -> Result<Hook> {
    let sig = &function.sig;
    let ctx = sig.inputs.iter().nth(1);
    let ctx_is_right = match ctx {
        None => true,
        Some(FnArg::Typed(ctx)) => may_take_ctx && is_mut_reference(&ctx.ty),
        Some(FnArg::Receiver(_)) => false,
    };
    let well_formed = sig.asyncness.is_some()
        && sig.generics.params.is_empty()
        && takes_mut_self(function)
        && sig.inputs.len() <= 2
        && ctx_is_right
        && matches!(sig.output, ReturnType::Default);
    if !well_formed {
        let name = &sig.ident;
        let ctx = if may_take_ctx { ", ctx: &mut Context<Self>" } else { "" };
        let why =
            format!("write `async fn {name}(&mut self{ctx})`, or #[helper] if it is not the hook");
        return Err(Error::new_spanned(sig, why));
    }
    let cfgs = cfgs(&function.attrs);
    Ok(Hook { method: sig.ident.clone(), takes_ctx: ctx.is_some(), cfgs })
}

fn takes_mut_self(function: &ImplItemFn) -> bool {
    function.sig.receiver().is_some_and(|receiver| {
        receiver.reference.is_some()
            && receiver.mutability.is_some()
            && receiver.colon_token.is_none()
    })
}

pub(crate) fn is_mut_reference(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_some())
}

/// Takes one of our marks off a function; whether it was there.
pub(crate) fn take_mark(function: &mut ImplItemFn, mark: &str) -> bool {
    let before = function.attrs.len();
    function.attrs.retain(|attr| !attr.path().is_ident(mark));
    function.attrs.len() < before
}

pub(crate) fn cfgs(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect()
}

pub(crate) fn name_of(ty: &Type) -> Result<LitStr> {
    let last = match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    };
    match last {
        Some(segment) => Ok(LitStr::new(&segment.ident.unraw().to_string(), segment.span())),
        None => Err(Error::new_spanned(ty, "#[actor] goes on an `impl` of a named type")),
    }
}

fn generate(
    item: &ItemImpl,
    methods: &Methods,
    name: &LitStr,
    output: &Type,
    entry: bool,
) -> TokenStream {
    let this = &item.self_ty;
    let (generics, _, bounds) = item.generics.split_for_impl();
    let lib: Path = syn::parse_quote!(::layercake::__private);
    let entry = entry.then(|| {
        // The type's own constant, where it has a `Default`, comes before the trait's.
        let entry = quote_spanned!(resolved_here(this.span())=> #lib::Probe::<#this>::ENTRY);
        quote! {
            #lib::inventory::submit! {{
                #[allow(unused_imports)]
                use #lib::NoEntry as _;
                #entry
            }}
        }
    });

    let mail =
        Mail { item, handlers: &methods.handlers, unknown: methods.unknown.as_ref(), lib: &lib };
    let (mail_type, mail_enum) = (mail.ty(), mail.definition());
    let (accept, open, handle) = (mail.accept(), mail.open(), mail.handle());
    let takes_unknown = methods.unknown.is_some();
    let tags_differ = mail.tags_differ();

    let descriptions = methods.handlers.iter().map(|Handler { message, cfgs, .. }| {
        quote! {
            #(#cfgs)*
            messages.push(::std::sync::Arc::clone(<#message as #lib::Message>::describe()));
        }
    });
    let accepts = methods.handlers.iter().map(|Handler { message, cfgs, .. }| {
        quote! {
            #(#cfgs)*
            #[automatically_derived]
            impl #generics #lib::Accepts<#message> for #this #bounds {}
        }
    });
    let with_ctx = |hook: &Hook| {
        let Hook { method, takes_ctx, cfgs } = hook;
        let ctx = takes_ctx.then(|| quote!(ctx));
        quote! {
            #(#cfgs)*
            #[allow(unused_variables)]
            async fn #method(&mut self, ctx: &mut #lib::Context<Self>) {
                Self::#method(self, #ctx).await
            }
        }
    };
    let started = methods.started.iter().map(with_ctx);
    let stopping = methods.stopping.iter().map(with_ctx);
    let stopped = methods.stopped.iter().map(|Hook { method, cfgs, .. }| {
        quote! {
            #(#cfgs)*
            async fn stopped(&mut self) { Self::#method(self).await }
        }
    });

    // One block, so that nothing generated can be named, or clash, outside of it.
    quote! {
        const _: () = {
            #mail_enum

            #[automatically_derived]
            impl #generics #lib::Mail for #mail_type #bounds {
                const TAKES_UNKNOWN: bool = #takes_unknown;

                #[allow(unused_mut, clippy::vec_init_then_push)]
                fn api() -> #lib::Api {
                    let mut messages = ::std::vec::Vec::new();
                    #(#descriptions)*
                    #lib::Api { actor: ::std::string::String::from(#name), messages }
                }

                #[allow(unused_variables)]
                fn accept(
                    packet: &mut dyn ::std::any::Any,
                ) -> ::std::option::Option<Self> {
                    #accept
                }

                #[allow(unused_variables)]
                fn open(parcel: #lib::Parcel) -> ::std::option::Option<Self> {
                    #open
                }
            }

            #[automatically_derived]
            impl #generics #lib::Actor for #this #bounds {
                const NAME: &'static str = #name;
                type Mail = #mail_type;
                type Output = #output;

                #[allow(unused_variables)]
                async fn handle(&mut self, mail: Self::Mail, ctx: &mut #lib::Context<Self>) {
                    #handle
                }

                #(#started)*
                #(#stopping)*
                #(#stopped)*
            }

            #(#accepts)*
            #tags_differ
            #entry
        };
    }
}

/// The enum of what the actor's mailbox holds, and what is done by its variants.
struct Mail<'a> {
    item: &'a ItemImpl,
    handlers: &'a [Handler],
    unknown: Option<&'a Hook>,
    lib: &'a Path,
}

impl Mail<'_> {
    fn type_params(&self) -> Vec<&Ident> {
        self.item.generics.type_params().map(|param| &param.ident).collect()
    }

    fn ty(&self) -> TokenStream {
        let (_, arguments, _) = self.item.generics.split_for_impl();
        quote!(__LayercakeMail #arguments)
    }

    /// The enum is public as its trait is, also where the messages are private to a module.
    fn definition(&self) -> TokenStream {
        let lib = self.lib;
        let (generics, _, bounds) = self.item.generics.split_for_impl();
        let variants = self.handlers.iter().map(|Handler { method, message, cfgs, .. }| {
            quote!(#(#cfgs)* #method(#lib::Packet<#message>),)
        });
        let unknown =
            self.unknown.map(|Hook { cfgs, .. }| quote!(#(#cfgs)* __Unknown(#lib::Unknown),));
        let params = self.type_params();
        // Never made: uses up the type parameters that no message has.
        let never = (!params.is_empty()).then(|| {
            quote!(__Never(::std::convert::Infallible, ::std::marker::PhantomData<fn() -> (#(#params,)*)>),)
        });
        quote! {
            #[doc(hidden)]
            #[allow(
                missing_docs,
                non_camel_case_types,
                private_interfaces,
                private_bounds,
                unreachable_pub,
                clippy::large_enum_variant
            )]
            pub enum __LayercakeMail #generics #bounds { #(#variants)* #unknown #never }
        }
    }

    fn accept(&self) -> TokenStream {
        let lib = self.lib;
        let each = self.handlers.iter().map(|Handler { method, message, cfgs, .. }| {
            quote! {
                #(#cfgs)*
                if let ::std::option::Option::Some(slot) =
                    packet.downcast_mut::<::std::option::Option<#lib::Packet<#message>>>()
                {
                    return slot.take().map(__LayercakeMail::#method);
                }
            }
        });
        quote!(#(#each)* ::std::option::Option::None)
    }

    fn open(&self) -> TokenStream {
        let lib = self.lib;
        let each = self.handlers.iter().map(|Handler { method, message, cfgs, .. }| {
            quote! {
                #(#cfgs)*
                if parcel.tag() == <#message as #lib::Message>::TAG {
                    return parcel.unpack::<#message>().map(__LayercakeMail::#method);
                }
            }
        });
        match self.unknown {
            Some(Hook { cfgs, .. }) => quote! {
                #(#each)*
                #(#cfgs)*
                return ::std::option::Option::Some(__LayercakeMail::__Unknown(
                    parcel.into_unknown(),
                ));
                #[allow(unreachable_code)]
                ::std::option::Option::None
            },
            None => quote!(#(#each)* parcel.refuse(); ::std::option::Option::None),
        }
    }

    fn handle(&self) -> TokenStream {
        let lib = self.lib;
        let arms = self.handlers.iter().map(|handler| {
            let Handler { method, message, cfgs, .. } = handler;
            let (begin, body) = handler.body(lib);
            // The type is said so that a message without `#[message]` is reported where it stands.
            quote! {
                #(#cfgs)*
                __LayercakeMail::#method(packet) => {
                    let packet: #lib::Packet<#message> = packet;
                    if let ::std::option::Option::Some((message, reply)) = packet.#begin() {
                        #body
                    }
                }
            }
        });
        let unknown = self.unknown.map(|Hook { method, takes_ctx, cfgs }| {
            let ctx = takes_ctx.then(|| quote!(ctx));
            quote! {
                #(#cfgs)*
                __LayercakeMail::__Unknown(message) => Self::#method(self, message, #ctx).await,
            }
        });
        let never = (!self.type_params().is_empty())
            .then(|| quote!(__LayercakeMail::__Never(never, _) => match never {},));
        quote!(match mail { #(#arms)* #unknown #never })
    }

    /// Two types may share a name, being versions of one message; an actor takes one of them.
    fn tags_differ(&self) -> TokenStream {
        let lib = self.lib;
        // Where a message depends on a parameter, its tag is known only to the user of the actor.
        if !self.item.generics.params.is_empty() {
            return TokenStream::new();
        }
        let pairs =
            self.handlers.iter().enumerate().flat_map(|(at, second)| {
                self.handlers[..at].iter().map(move |first| (first, second))
            });
        let checks = pairs.map(|(first, second)| {
            let (a, b) = (&first.message, &second.message);
            let (a_cfgs, b_cfgs) = (&first.cfgs, &second.cfgs);
            let why = format!(
                "`{}` and `{}` are one message by name: handle one of them",
                a.to_token_stream(),
                b.to_token_stream(),
            );
            let span = resolved_here(b.span());
            quote_spanned! {span=>
                #(#a_cfgs)*
                #(#b_cfgs)*
                const _: () = ::std::assert!(
                    <#a as #lib::Message>::TAG.0 != <#b as #lib::Message>::TAG.0,
                    #why
                );
            }
        });
        quote!(#(#checks)*)
    }
}

/// The place for messages of the compiler, with the names of generated code.
fn resolved_here(span: Span) -> Span {
    span.resolved_at(Span::call_site())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: TokenStream, item: TokenStream) -> String {
        expand(args, item).expect_err("refused").to_string()
    }

    fn handlers(item: TokenStream) -> Vec<String> {
        let mut item: ItemImpl = syn::parse2(item).expect("an impl");
        let methods = Methods::of(&mut item).expect("well formed");
        methods.handlers.iter().map(|handler| handler.method.to_string()).collect()
    }

    #[test]
    fn a_handler_is_known_by_its_shape() {
        let found = handlers(quote! {
            impl Worker {
                async fn texture(&mut self, Xy { x, y }: Xy) -> u32 { x + y }
                async fn other(&mut self, m: Other, ctx: &mut Context<Self>) {}
                async fn later(&mut self, m: Later, reply: Reply<u32>) {}
                async fn both(&mut self, m: Both, ctx: &mut Context<Self>, reply: Reply<u32>) {}
                async fn parts(&mut self, m: Parts, out: &mut Outlet<u32>) {}
                #[cancel]
                async fn long(&mut self, m: Long) {}
                async fn unknown(&mut self, m: Unknown) {}
                async fn started(&mut self, ctx: &mut Context<Self>) {}
                async fn stopped(&mut self) {}
                fn plain(&mut self, m: Xy) {}
                async fn shared(&self, m: Xy) {}
                async fn by_reference(&mut self, m: &Xy) {}
                async fn no_message(&mut self) {}
                async fn two(&mut self, a: u32, b: u32) {}
                async fn generic<T>(&mut self, m: T) {}
                #[helper]
                async fn exempt(&mut self, m: Xy) {}
                async fn new(m: Xy) -> Self { Worker }
            }
        });
        assert_eq!(found, ["texture", "other", "later", "both", "parts", "long"]);
    }

    #[test]
    fn the_mark_of_a_helper_is_taken_off() {
        let item = quote! {
            impl Worker {
                async fn a(&mut self, m: A) {}
                #[helper]
                async fn b(&mut self, m: B) {}
            }
        };
        let text = expand(quote!(), item).expect("expands").to_string();
        assert!(!text.contains("helper"), "{text}");
    }

    #[test]
    fn only_a_plain_type_has_an_entry_and_only_if_wanted() {
        let entry = |args, item| expand(args, item).expect("expands").to_string().contains("ENTRY");
        let plain = quote!(impl Worker { async fn a(&mut self, m: A) {} });
        assert!(entry(quote!(), plain.clone()));
        assert!(!entry(quote!(no_entry), plain));
        assert!(!entry(
            quote!(),
            quote!(
                impl<T: Send> W<T> {
                    async fn a(&mut self, m: A) {}
                }
            )
        ));
    }

    #[test]
    fn what_is_wrong_with_an_actor_is_said() {
        let ok = quote!(
            async fn a(&mut self, m: A) {}
        );
        let of = |item| refused(quote!(), item);
        assert!(refused(quote!(naem = "x"), quote!(impl W { #ok })).contains("unknown key `naem`"));
        assert!(of(quote!(impl Tr for W { #ok })).contains("not on that of a trait"));
        assert!(of(quote!(impl<'a> W<'a> { #ok })).contains("borrows nothing"));
        assert!(of(quote!(impl W { fn a(&self) {} })).contains("no handlers here"));
        assert!(of(quote!(impl (A, B) { #ok })).contains("a named type"));
        let twice = of(quote!(impl W { #ok async fn b(&mut self, m: A) {} }));
        assert!(twice.contains("a second handler of `A`"), "{twice}");
        let started = of(quote!(impl W { #ok fn started(&mut self) {} }));
        assert!(started.contains("`async fn started(&mut self, ctx: &mut Context<Self>)`"));
        let cancel = of(quote!(impl W { #[cancel] async fn b(&mut self, m: B, r: Reply<u8>) {} }));
        assert!(cancel.contains("by what it returns"), "{cancel}");
        let unknown = of(quote!(impl W { #ok async fn unknown(&mut self, m: M) {} }));
        assert!(unknown.contains("message: Unknown"), "{unknown}");
        let stopped = of(quote!(impl W { #ok async fn stopped(&mut self, m: M) {} }));
        assert!(stopped.contains("`async fn stopped(&mut self)`"), "{stopped}");
    }
}

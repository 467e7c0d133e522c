//! `#[layercake::main]` and `#[entry]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, Ident, ItemFn, PathArguments, Result, ReturnType, Type, spanned::Spanned};

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new(args.span(), "#[layercake::main] takes no arguments"));
    }
    let mut inner: ItemFn = syn::parse2(item)?;
    let sig = &inner.sig;
    let shape = "write `async fn main(node: Node) -> Result<()>`, or `(node: Node, args: Args)`";
    if sig.asyncness.is_none() {
        return Err(Error::new(sig.fn_token.span, format!("main must be async: {shape}")));
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        return Err(Error::new(sig.generics.span(), format!("main is not generic: {shape}")));
    }
    let plain = sig.inputs.iter().all(|input| matches!(input, FnArg::Typed(_)));
    if !plain || !(1..=2).contains(&sig.inputs.len()) {
        return Err(Error::new(sig.ident.span(), format!("main takes the node: {shape}")));
    }

    // The user's function moves inside the plain one, under its own name, so that its return type
    // drives `?` and the compiler's messages show what the user wrote.
    let name = inner.sig.ident.clone();
    let vis = std::mem::replace(&mut inner.vis, syn::Visibility::Inherited);
    let attrs = std::mem::take(&mut inner.attrs);
    let run = match inner.sig.inputs.len() {
        1 => quote!(run_main),
        _ => quote!(run_main_with),
    };
    Ok(quote! {
        #(#attrs)*
        #vis fn #name() -> ::std::process::ExitCode {
            #inner
            ::layercake::__private::#run(#name)
        }
    })
}

/// `#[entry(Name)]`: a function that a process can be started as.
pub(crate) fn entry(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let name: Ident = syn::parse2(args).map_err(|error| {
        Error::new(error.span(), "name the program: `#[entry(Render)] async fn render(…)`")
    })?;
    let item: ItemFn = syn::parse2(item)?;
    let sig = &item.sig;
    let shape = "write `async fn name(inbox: Inbox<M>, args: Args) -> Output`";
    let types: Vec<_> = sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let letters = match types.first() {
        Some(Type::Path(path)) => path.path.segments.last().filter(|last| last.ident == "Inbox"),
        _ => None,
    };
    let letters = letters.and_then(|last| match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.first(),
        _ => None,
    });
    let (Some(letters), true) = (letters, types.len() <= 2 && sig.asyncness.is_some()) else {
        return Err(Error::new_spanned(sig, shape));
    };
    if !sig.generics.params.is_empty() {
        return Err(Error::new_spanned(&sig.generics, "a program has no parameters"));
    }
    let lib: syn::Path = syn::parse_quote!(::layercake::__private);
    let arguments = match types.get(1) {
        Some(ty) => quote!(#ty),
        None => quote!(#lib::NoArgs),
    };
    let pass = types.get(1).map(|_| quote!(args));
    let output = match &sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let (vis, function) = (&item.vis, &sig.ident);
    let doc = format!("The program of `{function}`: `node.process::<{name}>(…)`.");
    Ok(quote! {
        #item

        #[doc = #doc]
        #vis struct #name;

        #[automatically_derived]
        impl #lib::Program for #name {
            type Args = #arguments;
            type Takes = #letters;
            type Output = #output;

            fn name() -> &'static str {
                ::std::concat!(::std::module_path!(), "::", ::std::stringify!(#name))
            }
        }

        #[automatically_derived]
        impl #lib::FunctionProgram for #name {
            type Letters = #letters;

            #[allow(unused_variables)]
            async fn run(inbox: #lib::Inbox<#letters>, args: #arguments) -> #output {
                #function(inbox, #pass).await
            }
        }

        const _: () = {
            #lib::inventory::submit! { #lib::Entry::of_function::<#name>() }
        };
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: TokenStream, item: TokenStream) -> String {
        expand(args, item).expect_err("refused").to_string()
    }

    #[test]
    fn the_function_moves_inside_and_keeps_its_return_type() {
        let expanded = expand(
            quote!(),
            quote! {
                /// Serves.
                async fn main(node: Node) -> Result<()> { node.serve().await }
            },
        );
        let expected = quote! {
            #[doc = r" Serves."]
            fn main() -> ::std::process::ExitCode {
                async fn main(node: Node) -> Result<()> { node.serve().await }
                ::layercake::__private::run_main(main)
            }
        };
        assert_eq!(expanded.expect("expands").to_string(), expected.to_string());
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said() {
        let refused = |args, item| entry(args, item).expect_err("refused").to_string();
        let ok = quote!(
            async fn f(inbox: Inbox<M>) {}
        );
        assert!(refused(quote!(), ok.clone()).contains("name the program"));
        assert!(
            refused(
                quote!(F),
                quote!(
                    async fn f(a: u8) {}
                )
            )
            .contains("Inbox<M>")
        );
        assert!(
            refused(
                quote!(F),
                quote!(
                    fn f(inbox: Inbox<M>) {}
                )
            )
            .contains("async fn")
        );
        assert!(entry(quote!(F), ok).is_ok());
    }

    #[test]
    fn what_is_wrong_with_main_is_said() {
        assert!(
            refused(
                quote!(),
                quote!(
                    fn main(node: Node) {}
                )
            )
            .contains("must be async")
        );
        assert!(
            refused(
                quote!(),
                quote!(
                    async fn main() {}
                )
            )
            .contains("takes the node")
        );
        assert!(
            refused(
                quote!(),
                quote!(
                    async fn main(a: Node, b: u8, c: u8) {}
                )
            )
            .contains("takes the")
        );
        assert!(
            refused(
                quote!(),
                quote!(
                    async fn main<T>(node: T) {}
                )
            )
            .contains("not generic")
        );
        assert!(
            refused(
                quote!(x),
                quote!(
                    async fn main(node: Node) {}
                )
            )
            .contains("no arguments")
        );
    }
}

//! `#[layercake::main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, ItemFn, Result, spanned::Spanned};

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new(args.span(), "#[layercake::main] takes no arguments"));
    }
    let mut inner: ItemFn = syn::parse2(item)?;
    let sig = &inner.sig;
    let shape = "write `async fn main(node: Node) -> Result<()>`";
    if sig.asyncness.is_none() {
        return Err(Error::new(sig.fn_token.span, format!("main must be async: {shape}")));
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        return Err(Error::new(sig.generics.span(), format!("main is not generic: {shape}")));
    }
    let takes_node = sig.inputs.len() == 1 && matches!(sig.inputs.first(), Some(FnArg::Typed(_)));
    if !takes_node {
        return Err(Error::new(sig.ident.span(), format!("main takes the node: {shape}")));
    }

    // The user's function moves inside the plain one, under its own name, so that its return type
    // drives `?` and the compiler's messages show what the user wrote.
    let name = inner.sig.ident.clone();
    let vis = std::mem::replace(&mut inner.vis, syn::Visibility::Inherited);
    let attrs = std::mem::take(&mut inner.attrs);
    Ok(quote! {
        #(#attrs)*
        #vis fn #name() -> ::std::process::ExitCode {
            #inner
            ::layercake::__private::run_main(#name)
        }
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
                    async fn main(a: Node, b: u8) {}
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

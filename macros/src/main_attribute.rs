//! `#[rwf::main]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Error, ItemFn};

/// The function without `async`, its body driven on the calling thread.
pub(crate) fn main(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "write `#[rwf::main]`: it takes no arguments"));
    }
    let item: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(error.span(), "`#[rwf::main]` goes before `async fn main() { … }`")
    })?;
    let ItemFn { attrs, vis, mut sig, block, .. } = item;
    if sig.asyncness.take().is_none() {
        return Err(Error::new_spanned(
            sig.fn_token,
            "write `async fn`, or leave out `#[rwf::main]` and call `run()` instead of `launch().await`",
        ));
    }
    let qualifiers =
        [sig.constness.to_token_stream(), sig.safety.to_token_stream(), sig.abi.to_token_stream()];
    if let Some(unfit) = qualifiers.into_iter().find(|tokens| !tokens.is_empty()) {
        let message = format!("`main` cannot be `{unfit}`: write `async fn main() {{ … }}`");
        return Err(Error::new_spanned(unfit, message));
    }
    if !sig.inputs.is_empty() {
        return Err(Error::new_spanned(&sig.inputs, "`main` takes no arguments"));
    }
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            ::rwf::block_on(async move #block)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_stays_but_for_async() {
        let item = quote! { async fn main() -> Result<(), Error> { run().await } };
        let tokens = main(TokenStream::new(), item).unwrap().to_string();
        assert!(tokens.starts_with("fn main () -> Result < () , Error > {"), "{tokens}");
    }

    #[test]
    fn wrong_use_says_what_to_write() {
        for (arguments, item, part) in [
            (
                quote!(),
                quote!(
                    fn main() {}
                ),
                "write `async fn`",
            ),
            (
                quote!(),
                quote!(
                    struct Main;
                ),
                "goes before `async fn main()",
            ),
            (
                quote!(),
                quote!(
                    async fn main(argument: u8) {}
                ),
                "takes no arguments",
            ),
            (
                quote!(),
                quote!(
                    const async fn main() {}
                ),
                "cannot be `const`: write `async fn main() { … }`",
            ),
            (
                quote!(),
                quote!(
                    async unsafe extern "C" fn main() {}
                ),
                "cannot be `unsafe`",
            ),
            (
                quote!(),
                quote!(
                    async extern "C" fn main() {}
                ),
                "cannot be `extern \"C\"`",
            ),
            (
                quote!(threads = 4),
                quote!(
                    async fn main() {}
                ),
                "write `#[rwf::main]`",
            ),
        ] {
            let error = main(arguments, item).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

//! `#[derive(WebsocketController)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_quote};

/// `impl Controller`, by the session that `WebsocketController::handle` runs.
pub(crate) fn websocket_controller(mut input: DeriveInput) -> TokenStream {
    let name = input.ident.clone();
    if input.generics.type_params().next().is_some() {
        // What the author demands of the parameters need not be said again.
        let (_, type_generics, _) = input.generics.split_for_impl();
        let bound = parse_quote!(#name #type_generics: ::rwf::controller::WebsocketController);
        input.generics.make_where_clause().predicates.push(bound);
    }
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #[::rwf::prelude::async_trait]
        impl #impl_generics ::rwf::controller::Controller for #name #type_generics #where_clause {
            async fn handle(
                &self,
                request: &::rwf::http::Request,
            ) -> ::core::result::Result<::rwf::http::Response, ::rwf::controller::Error> {
                ::rwf::controller::WebsocketController::handle(self, request).await
            }

            fn endpoint(
                &self,
                defaults: ::rwf::controller::Websocket,
            ) -> ::core::option::Option<::rwf::controller::Websocket> {
                ::core::option::Option::Some(
                    ::rwf::controller::WebsocketController::websocket(self, defaults),
                )
            }
        }

        // The documented program imports `Websocket`, the settings, before it needs them. With the type comes a derive
        // macro of the same name, which does nothing: its use here counts as a use of the import, so that the compiler
        // does not warn of it. A type, trait or function of the program's own that has this name is not concerned,
        // because macros have a namespace of their own. The inner glob finds what the module imports, and the outer one
        // is for modules that do not.
        const _: () = {
            #[allow(unused_imports)]
            use ::rwf::controller::*;
            const _: () = {
                #[allow(unused_imports)]
                use self::*;
                #[allow(dead_code)]
                #[derive(Websocket)]
                struct UsesImport;
            };
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generics_are_carried_over() {
        let input = syn::parse_quote! { struct Room<T: Send>(T) where T: Sync; };
        let tokens = websocket_controller(input).to_string();
        assert!(
            tokens.contains(
                "impl < T : Send > :: rwf :: controller :: Controller for Room < T > where T : Sync , \
                 Room < T > : :: rwf :: controller :: WebsocketController"
            ),
            "{tokens}"
        );
    }
}

//! `route!`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprPath, Lit, PathSegment, Token};

const USAGE: &str =
    "write `route!(\"/path\" => Controller)`, or an expression in place of the type";

/// `path => controller`.
pub(crate) struct Route {
    path: Expr,
    controller: Controller,
}

enum Controller {
    /// To be made with `Default`.
    Type(ExprPath),
    Expression(Expr),
}

impl Parse for Route {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            return Err(Error::new(input.span(), USAGE));
        }
        let path: Expr = input.parse().map_err(|error| Error::new(error.span(), USAGE))?;
        check_path(&path)?;
        if !input.peek(Token![=>]) {
            return Err(Error::new(input.span(), format!("expected `=>`: {USAGE}")));
        }
        input.parse::<Token![=>]>()?;
        if input.is_empty() {
            return Err(Error::new(input.span(), format!("expected a controller: {USAGE}")));
        }
        let controller = match input.parse()? {
            Expr::Path(path) if names_type(&path) => Controller::Type(path),
            expression => Controller::Expression(expression),
        };
        input.parse::<Option<Token![,]>>()?;
        if !input.is_empty() {
            return Err(Error::new(input.span(), format!("one route at a time: {USAGE}")));
        }
        Ok(Self { path, controller })
    }
}

impl Route {
    pub(crate) fn expand(self) -> TokenStream {
        let Self { path, controller } = self;
        let controller = match controller {
            Controller::Type(name) => {
                quote_spanned!(name.span()=> <#name as ::core::default::Default>::default())
            }
            // With the span of the expression the compiler shows that where it has no controller.
            Controller::Expression(expression) => quote_spanned!(expression.span()=> {
                #[allow(unused_imports)]
                use ::rwf::written::Otherwise as _;
                ::rwf::written::Given::new(#expression).controller()
            }),
        };
        quote!(::rwf::http::Route::new(#path, #controller))
    }
}

/// What can be seen of a literal path; the server checks all of it when it starts.
fn check_path(path: &Expr) -> syn::Result<()> {
    let Expr::Lit(ExprLit { lit, .. }) = path else {
        return Ok(());
    };
    match lit {
        Lit::Str(text) if text.value().starts_with('/') => Ok(()),
        Lit::Str(text) => {
            let message = format!("a path begins with `/`: write \"/{}\"", text.value());
            Err(Error::new(lit.span(), message))
        }
        _ => Err(Error::new(lit.span(), format!("a path is text: {USAGE}"))),
    }
}

/// `Chat` and `chat::Chat` are types; `chat`, `CHAT`, `Chat::new()` and the variant `Chat::Public` are expressions.
fn names_type(path: &ExprPath) -> bool {
    let is_type = |segment: &PathSegment| {
        let name = segment.ident.to_string();
        let is_constant = name.len() > 1 && !name.contains(char::is_lowercase);
        name.starts_with(char::is_uppercase) && !is_constant
    };
    let mut segments = path.path.segments.iter().rev();
    segments.next().is_some_and(is_type) && !segments.next().is_some_and(is_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(tokens: TokenStream) -> Result<String, String> {
        syn::parse2(tokens)
            .map(|route: Route| route.expand().to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn types_are_made_with_default_and_expressions_are_taken() {
        let made = |tokens| expanded(tokens).unwrap().contains("Default");
        assert!(made(quote!("/a" => Echo)));
        assert!(made(quote!("/a" => echo::Echo)));
        assert!(made(quote!("/a" => Room::<Database>)));
        assert!(!made(quote!("/a" => Echo::new(1))));
        assert!(!made(quote!("/a" => echo)));
        assert!(!made(quote!("/a" => ECHO)));
        assert!(!made(quote!("/a" => Chat::Public)));
        assert!(!made(quote!("/a" => chat::Chat::Public)));
        assert!(!made(quote!(PATH => Echo { size: 1 },)));
    }

    #[test]
    fn wrong_use_says_what_to_write() {
        for (tokens, part) in [
            (quote!(), "write `route!(\"/path\" => Controller)`"),
            (quote!("/a"), "expected `=>`"),
            (quote!("/a", Echo), "expected `=>`"),
            (quote!("/a" =>), "expected a controller"),
            (quote!("a" => Echo), "begins with `/`: write \"/a\""),
            (quote!(7 => Echo), "a path is text"),
            (quote!("/a" => Echo, "/b" => Echo), "one route at a time"),
        ] {
            let error = expanded(tokens).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}

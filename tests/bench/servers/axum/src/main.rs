//! axum on a runtime of one thread, in TLS with axum-server; the fan-out by a broadcast channel, as in its chat example.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: axum PORT")?.parse()?;
    let (sender, _) = broadcast::channel::<Message>(1024);
    let router =
        Router::new()
            .route("/", get(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }))
            .route(
                "/fan",
                get(
                    |upgrade: WebSocketUpgrade,
                     State(sender): State<broadcast::Sender<Message>>| async {
                        upgrade.on_upgrade(|socket| fan_out(socket, sender))
                    },
                ),
            )
            .with_state(sender);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(config) = bench_tls::server_config()? {
        let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(config));
        let server = axum_server::bind(address).acceptor(acceptor.acceptor(NoDelayAcceptor));
        server.serve(router.into_make_service()).await?;
        return Ok(());
    }
    let listener = TcpListener::bind(address).await?;
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap_or_default());
    axum::serve(listener, router).await?;
    Ok(())
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            break;
        }
    }
}

async fn fan_out(socket: WebSocket, sender: broadcast::Sender<Message>) {
    let (mut sink, mut stream) = socket.split();
    let mut messages = sender.subscribe();
    tokio::spawn(async move {
        while let Ok(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
    });
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            let _ = sender.send(message);
        }
    }
}

//! yawc under hyper, on a runtime of one thread, with zlib-rs: the Rust peer that has permessage-deflate. Its compressors
//! are pooled, and its level is the fastest.

use std::cell::RefCell;
use std::error::Error;
use std::net::Ipv4Addr;
use std::rc::Rc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local, unconstrained};
use yawc::frame::{Frame, OpCode};
use yawc::{DeflatePool, Options, UpgradeFut, WebSocket, WebSocketError};

type Receivers = Rc<RefCell<Vec<UnboundedSender<Bytes>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: yawc PORT")?.parse()?;
    LocalSet::new().run_until(accept(port)).await
}

async fn accept(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let receivers = Receivers::default();
    let options = Options::default()
        .with_low_latency_compression()
        .server_no_context_takeover()
        .client_no_context_takeover()
        .with_compression_threshold(1024)
        .with_deflate_pool(DeflatePool::new(8))
        .with_utf8();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (receivers, options) = (Rc::clone(&receivers), options.clone());
        spawn_local(async move {
            let service =
                service_fn(|request| answer(request, Rc::clone(&receivers), options.clone()));
            // Every connection ends with an error: the other side closed it.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(
    mut request: Request<Incoming>,
    receivers: Receivers,
    options: Options,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = WebSocket::upgrade_with_options(&mut request, options)?;
    let fan = request.uri().path() == "/fan";
    spawn_local(async move {
        let _ = if fan {
            unconstrained(fan_out(upgraded, receivers)).await
        } else {
            unconstrained(echo(upgraded)).await
        };
    });
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut websocket = upgraded.await?;
    while let Some(frame) = websocket.next().await {
        if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
            websocket.send(frame).await?;
        }
    }
    Ok(())
}

async fn fan_out(upgraded: UpgradeFut, receivers: Receivers) -> Result<(), WebSocketError> {
    let (mut writer, mut reader) = upgraded.await?.split();
    let (sender, mut queue) = unbounded_channel::<Bytes>();
    receivers.borrow_mut().push(sender);
    spawn_local(async move {
        while let Some(text) = queue.recv().await {
            if writer.send(Frame::text(text)).await.is_err() {
                break;
            }
        }
    });
    while let Some(frame) = reader.next().await {
        if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
            let text = frame.into_payload();
            receivers.borrow().iter().for_each(|receiver| drop(receiver.send(text.clone())));
        }
    }
    Ok(())
}

//! tokio-tungstenite on a runtime of one thread.

use std::cell::RefCell;
use std::error::Error;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

type Receivers = Rc<RefCell<Vec<UnboundedSender<Message>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: tokio-tungstenite PORT")?.parse()?;
    LocalSet::new().run_until(accept(port)).await
}

async fn accept(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let acceptor = bench_tls::server_config()?.map(TlsAcceptor::from);
    let receivers = Receivers::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, receivers) = (acceptor.clone(), Rc::clone(&receivers));
        spawn_local(async move {
            // Every connection ends with an error: the other side closed it.
            let _ = match acceptor {
                None => serve(stream, &receivers).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => serve(stream, &receivers).await,
                    Err(error) => Err(error.into()),
                },
            };
        });
    }
}

#[allow(clippy::result_large_err, reason = "the callback's type is given")]
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    receivers: &Receivers,
) -> Result<(), Box<dyn Error>> {
    let fan = Arc::new(AtomicBool::new(false));
    let is_fan = Arc::clone(&fan);
    let mut websocket = accept_hdr_async(stream, move |request: &Request, response: Response| {
        is_fan.store(request.uri().path() == "/fan", Ordering::Relaxed);
        Ok(response)
    })
    .await?;
    if !fan.load(Ordering::Relaxed) {
        while let Some(message) = websocket.next().await {
            let message = message?;
            if message.is_text() || message.is_binary() {
                websocket.send(message).await?;
            }
        }
        return Ok(());
    }
    let (mut sink, mut stream) = websocket.split();
    let (sender, mut queue) = unbounded_channel();
    receivers.borrow_mut().push(sender);
    spawn_local(async move {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
    });
    while let Some(message) = stream.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            receivers.borrow().iter().for_each(|receiver| drop(receiver.send(message.clone())));
        }
    }
    Ok(())
}

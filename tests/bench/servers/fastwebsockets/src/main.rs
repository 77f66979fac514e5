//! fastwebsockets under hyper, on a runtime of one thread; as in its own examples.

use std::cell::RefCell;
use std::error::Error;
use std::net::Ipv4Addr;
use std::rc::Rc;

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError,
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local, unconstrained};
use tokio_rustls::TlsAcceptor;

type Receivers = Rc<RefCell<Vec<UnboundedSender<Bytes>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: fastwebsockets PORT")?.parse()?;
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
            match acceptor {
                None => serve(stream, receivers).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, receivers).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, receivers: Receivers) {
    let service = service_fn(|request| answer(request, Rc::clone(&receivers)));
    // Every connection ends with an error: the other side closed it.
    let _ =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(
    mut request: Request<Incoming>,
    receivers: Receivers,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
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
    let mut websocket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = websocket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => websocket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn fan_out(upgraded: UpgradeFut, receivers: Receivers) -> Result<(), WebSocketError> {
    let (reader, mut writer) = upgraded.await?.split(tokio::io::split);
    let mut reader = FragmentCollectorRead::new(reader);
    let (sender, mut queue) = unbounded_channel::<Bytes>();
    receivers.borrow_mut().push(sender);
    spawn_local(async move {
        while let Some(text) = queue.recv().await {
            if writer.write_frame(Frame::text(Payload::Borrowed(&text))).await.is_err() {
                break;
            }
        }
    });
    loop {
        let frame = reader.read_frame(&mut |_| async { Ok::<_, WebSocketError>(()) }).await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => {
                let text = Bytes::copy_from_slice(&frame.payload);
                receivers.borrow().iter().for_each(|receiver| drop(receiver.send(text.clone())));
            }
            _ => {}
        }
    }
}

//! tungstenite, a thread for each connection, with a read buffer of 8 KiB: its default of 128 is zeroed for each read.

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket, accept_hdr_with_config};

type Receivers = Arc<Mutex<Vec<Arc<Mutex<WebSocket<TcpStream>>>>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: tungstenite PORT")?.parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let receivers = Receivers::default();
    for stream in listener.incoming() {
        let (stream, receivers) = (stream?, Arc::clone(&receivers));
        thread::spawn(move || {
            // Every connection ends with an error: the other side closed it.
            let _ = serve(stream, &receivers);
        });
    }
    Ok(())
}

#[allow(clippy::result_large_err, reason = "the callback's type is given")]
fn serve(stream: TcpStream, receivers: &Receivers) -> Result<(), Box<dyn Error>> {
    stream.set_nodelay(true)?;
    let writer = stream.try_clone()?;
    let fan = Arc::new(AtomicBool::new(false));
    let is_fan = Arc::clone(&fan);
    let look_at_path = move |request: &Request, response: Response| {
        is_fan.store(request.uri().path() == "/fan", Ordering::Relaxed);
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(8 << 10);
    let mut websocket = accept_hdr_with_config(stream, look_at_path, Some(config))?;
    if !fan.load(Ordering::Relaxed) {
        drop(writer);
        loop {
            let message = websocket.read()?;
            if message.is_text() || message.is_binary() {
                websocket.send(message)?;
            }
        }
    }
    let writer =
        Arc::new(Mutex::new(WebSocket::from_raw_socket(writer, Role::Server, Some(config))));
    receivers.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
    loop {
        let message: Message = websocket.read()?;
        if message.is_text() || message.is_binary() {
            let receivers = receivers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for receiver in receivers {
                let _ =
                    receiver.lock().unwrap_or_else(PoisonError::into_inner).send(message.clone());
            }
        }
    }
}

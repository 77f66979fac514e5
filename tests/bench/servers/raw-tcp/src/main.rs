//! The yardstick: no framework, a thread for each connection, frames answered with one `read` and one `write`.
//! It checks nothing that an honest client does not need.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use data_encoding::BASE64;
use sha1_smol::Sha1;

type Receivers = Arc<Mutex<Vec<Arc<TcpStream>>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: raw-tcp PORT")?.parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let receivers = Receivers::default();
    for stream in listener.incoming() {
        let (stream, receivers) = (stream?, Arc::clone(&receivers));
        thread::spawn(move || serve(&Arc::new(stream), &receivers));
    }
    Ok(())
}

fn serve(stream: &Arc<TcpStream>, receivers: &Receivers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut socket: &TcpStream = stream;
    let mut buffer = vec![0; 4 << 10];
    let mut filled = 0;
    let head = loop {
        match socket.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            count => filled += count,
        }
        if let Some(end) = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break String::from_utf8_lossy(&buffer[..end]).into_owned();
        }
    };
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let Some(key) = key else { return Ok(()) };
    let mut hash = Sha1::from(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64.encode(&hash.digest().bytes());
    let fan = head.starts_with("GET /fan ");
    if fan {
        receivers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(stream));
    }
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(response.as_bytes())?;

    let mut start = 0;
    filled = 0;
    loop {
        match socket.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            count => filled += count,
        }
        // The replies are made in place: each is four bytes, the mask, shorter than its frame.
        let mut replies = None;
        let mut closing = false;
        while let Some((header, length)) = frame(&buffer[start..filled]) {
            let mask = [0, 1, 2, 3].map(|index| buffer[start + header - 4 + index]);
            let payload = start + header..start + header + length;
            unmask(&mut buffer[payload.clone()], mask);
            closing = buffer[start] & 0x0f == 8;
            buffer[start + 1] &= 0x7f;
            let (begin, end) = replies.unwrap_or((start + 4, start + 4));
            buffer.copy_within(start..start + header - 4, end);
            if end + header - 4 != payload.start {
                buffer.copy_within(payload.clone(), end + header - 4);
            }
            replies = Some((begin, end + header - 4 + length));
            start = payload.end;
        }
        if let Some((begin, end)) = replies {
            if fan && !closing {
                let receivers = receivers.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for receiver in receivers {
                    let _ = (&*receiver).write_all(&buffer[begin..end]);
                }
            } else {
                socket.write_all(&buffer[begin..end])?;
            }
        }
        if closing {
            return Ok(());
        }
        if start == filled {
            (start, filled) = (0, 0);
        } else if filled == buffer.len() {
            buffer.copy_within(start..filled, 0);
            (start, filled) = (0, filled - start);
            if filled == buffer.len() {
                buffer.resize(buffer.len() * 2, 0);
            }
        }
    }
}

/// The lengths of the header, mask included, and of the payload of the frame at the beginning, if it is whole.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, length) = match bytes.get(1)? & 0x7f {
        126 => (8, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize),
        127 => (14, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        length => (6, length as usize),
    };
    (bytes.len() >= header + length).then_some((header, length))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

//! 2 KiB of JSON, compressed. What a server makes of it is its own: it is inflated once, and has to come back like that each
//! time, as it does without context.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read, Write};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::Target;
use crate::stream::Stream;
use crate::wire::{Ring, frame, open};

pub(crate) const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; \
     server_no_context_takeover; client_no_context_takeover\r\n";
const RSV1: u8 = 0x40;
const TEXT: u8 = 1;
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const LENGTH: usize = 2 << 10;

/// The state of a market, say.
fn json() -> String {
    let mut text = String::from("{\"type\":\"update\",\"items\":[");
    for number in 0_u32.. {
        let noise = number.wrapping_mul(2_654_435_761);
        let item = format!(
            "{{\"id\":{},\"name\":\"item {}\",\"price\":{}.{:02},\"change\":-0.{:02},\"open\":{}}}",
            noise >> 12,
            noise % 9973,
            noise % 500,
            noise >> 8 & 63,
            noise >> 16 & 63,
            number % 3 == 0
        );
        if text.len() + item.len() + 3 > LENGTH {
            break;
        }
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{item}");
    }
    text.push_str(&" ".repeat(LENGTH - 2 - text.len()));
    text + "]}"
}

fn deflated(data: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::with_capacity(data.len() + 100);
    Compress::new(Compression::new(6), false).compress_vec(data, &mut out, FlushCompress::Sync)?;
    out.truncate(out.len() - TAIL.len());
    Ok(out)
}

/// The message as it is sent, and as it comes back.
pub(crate) fn ring(target: &Target, deflate: bool) -> Result<Ring, Box<dyn Error>> {
    let json = json();
    if !deflate {
        return Ok(Ring::of(
            frame(TEXT, json.as_bytes(), true),
            frame(TEXT, json.as_bytes(), false),
        ));
    }
    let mut stream = open(target, "/")?;
    let (request, reply, payload) = exchange(&mut stream)?;
    let mut out = Vec::with_capacity(2 * LENGTH);
    let wire = [payload, TAIL.to_vec()].concat();
    Decompress::new(false).decompress_vec(&wire, &mut out, FlushDecompress::Sync)?;
    if out != json.as_bytes() {
        return Err("something else comes back".into());
    }
    Ok(Ring::of(request, reply))
}

/// Sends the message, and waits for its answer: the frame sent, the one received, and the payload of that.
pub(crate) fn exchange(stream: &mut Stream) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let request = frame(TEXT | RSV1, &deflated(json().as_bytes())?, true);
    stream.write_all(&request)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    if head[..2] != [0x80 | RSV1 | TEXT, 126] {
        return Err(format!("no compressed message of some hundred bytes: {head:02x?}").into());
    }
    let mut payload = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut payload)?;
    Ok((request, [&head[..], &payload].concat(), payload))
}

//! actix-ws with one worker; the fan-out over all sessions, as in its chat example.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use actix_ws::{Message, Session};

#[derive(Default)]
struct Receivers(Mutex<Vec<Session>>);

const MOST: usize = 1 << 20;

async fn echo(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let (response, mut session, stream) = actix_ws::handle(&request, body)?;
    let mut stream = stream.max_frame_size(MOST);
    rt::spawn(async move {
        while let Some(Ok(message)) = stream.recv().await {
            let sent = match message {
                Message::Text(text) => session.text(text).await,
                Message::Binary(bytes) => session.binary(bytes).await,
                Message::Close(reason) => {
                    let _ = session.close(reason).await;
                    break;
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
    });
    Ok(response)
}

async fn fan_out(
    request: HttpRequest,
    body: web::Payload,
    receivers: web::Data<Receivers>,
) -> Result<HttpResponse, actix_web::Error> {
    let (response, session, mut stream) = actix_ws::handle(&request, body)?;
    receivers.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    rt::spawn(async move {
        while let Some(Ok(message)) = stream.recv().await {
            if let Message::Text(text) = message {
                let all = receivers.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for mut receiver in all {
                    let _ = receiver.text(text.clone()).await;
                }
            }
        }
    });
    Ok(response)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: actix-ws PORT")?.parse()?;
    let receivers = web::Data::new(Receivers::default());
    let app = move || {
        App::new()
            .app_data(receivers.clone())
            .route("/", web::get().to(echo))
            .route("/fan", web::get().to(fan_out))
    };
    HttpServer::new(app).workers(1).bind((Ipv4Addr::LOCALHOST, port))?.run().await?;
    Ok(())
}

//! Numbers as Prometheus reads them: its text format, version 0.0.4.

use std::fmt::{self, Display, Write as _};

use crate::controller::histogram::Histogram;
use crate::controller::stats::{RouteStats, Stats};

/// What the text is, for the header.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All numbers as text.
pub(crate) fn text(stats: &Stats) -> String {
    let mut text = Text::default();
    text.all(stats);
    text.0
}

#[derive(Default)]
struct Text(String);

/// The name and the value of a label.
type Label<'a> = (&'static str, &'a dyn Display);

impl Text {
    fn all(&mut self, stats: &Stats) {
        let Stats { connections, waiting, writer_threads, dropped, replaced, lost, .. } = stats;
        self.gauge("rwf_open_connections", "TCP connections that are open.", connections.now);
        let help = "TCP connections that were accepted.";
        self.counter("rwf_connections_total", help, connections.ever);

        let help = "HTTP requests, those that opened WebSockets included.";
        self.by_route("rwf_http_requests_total", help, "counter", stats, |route| route.requests);
        let help = "WebSockets that are open.";
        self.by_route("rwf_open_websockets", help, "gauge", stats, |route| route.websockets.now);
        let help = "WebSockets that were opened.";
        self.by_route("rwf_websockets_total", help, "counter", stats, |route| {
            route.websockets.ever
        });
        let help = "Messages that came over WebSockets.";
        self.by_route("rwf_messages_received_total", help, "counter", stats, |route| {
            route.received.messages
        });
        let help = "Bytes of frames that came over WebSockets.";
        self.by_route("rwf_received_bytes_total", help, "counter", stats, |route| {
            route.received.bytes
        });
        let help = "Messages that went out over WebSockets.";
        self.by_route("rwf_messages_sent_total", help, "counter", stats, |route| {
            route.sent.messages
        });
        let help = "Bytes of frames that went out over WebSockets.";
        self.by_route("rwf_sent_bytes_total", help, "counter", stats, |route| route.sent.bytes);

        let help = "Messages that wait for clients to take them.";
        self.gauge("rwf_waiting_messages", help, waiting.messages);
        let help = "Bytes for which the messages count that wait for clients.";
        self.gauge("rwf_waiting_bytes", help, waiting.bytes);
        let help = "Threads that wait for slow clients.";
        self.gauge("rwf_writer_threads", help, *writer_threads);
        let help = "Messages that were dropped for newer ones.";
        self.counter("rwf_messages_dropped_total", help, *dropped);
        let help = "Messages that a newer one under the same key replaced.";
        self.counter("rwf_messages_replaced_total", help, *replaced);
        let help = "Messages that were given up with their connection.";
        self.counter("rwf_messages_lost_total", help, *lost);

        let name = "rwf_websockets_closed_total";
        self.family(name, "WebSockets that ended.", "counter");
        for (cause, count) in &stats.closed {
            self.sample(name, &[("cause", cause)], count);
        }
        let name = "rwf_refusals_total";
        self.family(name, "Connections, requests and handshakes that were refused.", "counter");
        for (reason, count) in &stats.refused {
            self.sample(name, &[("reason", reason)], count);
        }

        let help = "Time from the head of a request to its 101.";
        self.histogram("rwf_handshake_seconds", help, &stats.handshake_times);
        let help = "Time that handlers took; of messages that arrived together, the first.";
        self.histogram("rwf_handler_seconds", help, &stats.handler_times);
        let name = "rwf_slowest_handler_seconds";
        self.family(name, "The slowest calls of handlers so far.", "gauge");
        for slow in &stats.slowest {
            let labels: [Label<'_>; 3] =
                [("route", &slow.route), ("handler", &slow.handler), ("call", &slow.call)];
            self.sample(name, &labels, slow.took.as_secs_f64());
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, "gauge");
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, "counter");
        self.sample(name, &[], value);
    }

    fn by_route(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        stats: &Stats,
        value: impl Fn(&RouteStats) -> u64,
    ) {
        self.family(name, help, kind);
        for route in &stats.routes {
            self.sample(name, &[("route", &route.route)], value(route));
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.buckets() {
            self.sample(&bucket, &[("le", &bound.as_secs_f64())], count);
        }
        self.sample(&bucket, &[("le", &"+Inf")], histogram.count());
        self.sample(&format!("{name}_sum"), &[], histogram.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), &[], histogram.count());
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            let _ = write!(Escaping(&mut self.0), "{value}");
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

/// Escapes what the value of a label cannot have.
struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str(r"\\"),
                '"' => self.0.push_str(r#"\""#),
                '\n' => self.0.push_str(r"\n"),
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::refusal::Refusal;
    use crate::controller::slowest::Call;
    use crate::websocket::close::Cause;
    use crate::websocket::traffic::Traffic;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("a", &[("one", &"\\ \"\n"), ("two", &"ä{},=")], 0.000_01);
        text.sample("b", &[], 2);
        assert_eq!(text.0, "a{one=\"\\\\ \\\"\\n\",two=\"ä{},=\"} 0.00001\nb 2\n");
    }

    #[test]
    fn numbers_stand_under_their_names() {
        let mut stats = Stats::new(&["/chat".to_owned()]);
        let traffic =
            Traffic { received_messages: 3, sent_bytes: 5, lost: 1, ..Traffic::default() };
        stats.note_websocket(0, &traffic, None);
        stats.note_websocket(0, &traffic, Some(Cause::SlowReceiver));
        let text = text(&stats);
        for line in [
            "# HELP rwf_open_websockets WebSockets that are open.",
            "# TYPE rwf_open_websockets gauge",
            "rwf_open_websockets{route=\"/chat\"} 1",
            "# TYPE rwf_websockets_total counter",
            "rwf_websockets_total{route=\"/chat\"} 2",
            "rwf_messages_received_total{route=\"/chat\"} 6",
            "rwf_sent_bytes_total{route=\"/chat\"} 10",
            "rwf_messages_lost_total 2",
            "rwf_websockets_closed_total{cause=\"slow_receiver\"} 1",
            "rwf_refusals_total{reason=\"origin\"} 0",
            "# TYPE rwf_handler_seconds histogram",
            "rwf_handler_seconds_bucket{le=\"0.00001\"} 0",
            "rwf_handler_seconds_bucket{le=\"10\"} 0",
            "rwf_handler_seconds_bucket{le=\"+Inf\"} 0",
            "rwf_handler_seconds_sum 0",
            "rwf_handler_seconds_count 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is missing in {text}");
        }
    }

    #[test]
    fn the_words_of_labels_are_of_one_style() {
        let causes = Cause::ALL.iter().map(ToString::to_string);
        let refusals = Refusal::ALL.iter().map(ToString::to_string);
        let calls = Call::ALL.iter().map(ToString::to_string);
        for word in causes.chain(refusals).chain(calls) {
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word:?}");
        }
    }

    #[test]
    fn each_family_is_in_the_documentation() {
        let table = include_str!("../server/metrics.rs");
        let text = text(&Stats::new(&[]));
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for family in families {
            let (name, kind) = family.split_once(' ').unwrap();
            let row = format!("/// | `{name}` | {kind} |");
            assert!(table.contains(&row), "{row:?} is missing");
        }
    }
}

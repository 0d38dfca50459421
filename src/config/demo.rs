//! The shipped `proxy.toml` as a template for demos on other ports.
//! Must not know how the servers are started.

/// The first port of the shipped `proxy.toml`'s servers; the six servers follow one another from here.
pub const DEMO_PORT_BASE: u16 = 5432;

/// How many servers the shipped `proxy.toml` has.
pub const DEMO_SERVERS: u16 = 6;

/// The proxy's port is this much above the base.
const PROXY_ABOVE_BASE: u16 = 1000;
/// The proxy's port in the shipped file.
const PROXY_PORT: u16 = DEMO_PORT_BASE + PROXY_ABOVE_BASE;
/// The HTTP server's port in the shipped file; with another base it is the one after the proxy's.
const HTTP_PORT: u16 = 3000;

const SHIPPED: &str = include_str!("../../proxy.toml");

/// The shipped `proxy.toml` with its servers on `base` to `base + 5`, the proxy on `base + 1000` and its HTTP server on
/// the port after that (with the usual base: on 3000).
///
/// `None` if those are not all ports: `base` must be 1 to 64534.
#[must_use]
pub fn demo_text(base: u16) -> Option<String> {
    let shift = |port: u16| base.checked_add(port.checked_sub(DEMO_PORT_BASE)?).filter(|_| base > 0);
    let proxy = shift(PROXY_PORT)?;
    let http = if base == DEMO_PORT_BASE { HTTP_PORT } else { proxy.checked_add(1)? };
    let mut text = String::with_capacity(SHIPPED.len());
    for line in SHIPPED.split_inclusive('\n') {
        match port_in(line) {
            Some((before, port, after)) => {
                let shifted = shift(port)?;
                text.push_str(&format!("{before}{shifted}{after}"));
            }
            None => text.push_str(&in_own_line(line, proxy, http)),
        }
    }
    Some(text)
}

/// A server's line, cut round its port.
fn port_in(line: &str) -> Option<(&str, u16, &str)> {
    let at = line.find("port = ").filter(|_| line.trim_start().starts_with("{ host"))? + "port = ".len();
    let (before, rest) = line.split_at(at);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    Some((before, digits.parse().ok()?, after))
}

/// The proxy's own ports, in its addresses and in what is said beside them.
fn in_own_line(line: &str, proxy: u16, http: u16) -> String {
    if !line.starts_with("listen") {
        return line.to_owned();
    }
    // One of them stands in a line. Replaced one after the other, 3000 would be found in 13000.
    let [own, other] = [PROXY_PORT, HTTP_PORT].map(|port| port.to_string());
    if line.contains(&own) {
        line.replace(&own, &proxy.to_string())
    } else {
        line.replace(&other, &http.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_base_gives_the_shipped_file_itself() {
        assert_eq!(demo_text(DEMO_PORT_BASE).as_deref(), Some(SHIPPED));
    }

    #[test]
    fn only_the_servers_the_proxy_and_its_http_server_move() {
        let moved = demo_text(15432).unwrap();
        let changed: Vec<(&str, &str)> =
            SHIPPED.lines().zip(moved.lines()).filter(|(old, new)| old != new).collect();
        assert_eq!(changed.len(), usize::from(DEMO_SERVERS) + 2);
        assert!(changed[0].1.contains("[\"127.0.0.1:16432\"]") && changed[0].1.contains("-p 16432 "));
        assert!(changed[1].1.contains("\"127.0.0.1:16433\"") && changed[1].1.contains(":16433/"));
        for ((_, line), port) in changed[2..].iter().zip(15432..) {
            assert!(line.contains(&format!("port = {port},")), "{line}");
        }
    }

    #[test]
    fn a_port_that_holds_the_digits_of_another_moves_once() {
        let moved = demo_text(12000).unwrap();
        assert!(moved.contains("[\"127.0.0.1:13000\"]") && moved.contains("\"127.0.0.1:13001\""), "{moved}");
    }

    #[test]
    fn ports_that_do_not_exist_are_refused() {
        assert!(demo_text(64534).is_some());
        for base in [0, 64535, u16::MAX] {
            assert_eq!(demo_text(base), None, "{base}");
        }
    }
}

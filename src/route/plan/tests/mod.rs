//! Routing by tables: SQL, and the route it must get. What PostgreSQL 15 says of the keys used:
//!
//! | `hashtextextended(key, 0) & 16383` | partition | shard |
//! |---|---|---|
//! | u1 2282, u2 2258, `5 ` … , -5 1504 | A | 1 |
//! | x 6281, y 5640, 7 5177 | B | 1 |
//! | z 9022, u5 9277, 5 8726 | C | 3 |
//! | a 12465, u3 12432, it's 11739, é 11019 | D | 2 |
//! | u11 15040, u13 15269 | E | 3 |
//!
//! By `hashint8extended`: 5 and 7 A, 1 and 8 B, 12 and -4 C, 9, 4 and -5 D. `x ` is in A although x is in B.

mod blocks;
mod fixture;
mod keys;
mod places;
mod spread;
mod writes;

use self::fixture::{Sent, refusals, routes};

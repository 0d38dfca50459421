//! A sharding key to a partition to a shard. Pure.
//! Must not know SQL, servers or sockets.

mod hash;
mod id;
mod key;
mod map;
mod retype;

pub use self::hash::{SLOTS, hash_extended_bytes, hash_extended_int, slot_of};
pub use self::id::{PartitionId, ShardId, ShardSet};
pub use self::key::{Key, KeyError, KeyType};
pub use self::map::{KeyColumn, Map, MapError, Method, Partition, Placement, TableName};
pub use self::retype::{KeyTypes, RetypeError, RetypeProblem};

// pgherd from Node.js, with pg: `npm install && npm start` while `pgherd demo` runs.
// Another place to connect to: DATABASE_URL=postgres://user:password@host:port/database.

import pg from "pg";

const DEMO = "postgres://app:app@127.0.0.1:6432/app";
const EMAIL = "quickstart-node@example.com";

// One prepared statement (it has a name) for users of several shards. partition_key is left out: pgherd fills it in.
async function insertUsers(client, users) {
  const text = "INSERT INTO users (user_id, name, email) VALUES ($1, $2, $3) RETURNING partition_key";
  for (const user of users) {
    const { rows } = await client.query({ name: "insert-user", text, values: [user, "Ada", EMAIL] });
    console.log(`inserted ${user} into partition ${rows[0].partition_key}`);
  }
}

// All statements of a transaction belong to one shard: here to that of one user.
async function orderInATransaction(client, user) {
  await client.query("BEGIN");
  try {
    for (const [order, amount] of [["first", "9.99"], ["second", "12.50"]]) {
      await client.query("INSERT INTO orders (user_id, order_id, amount) VALUES ($1, $2, $3)", [user, order, amount]);
    }
    const updated = await client.query("UPDATE users SET name = 'Ada, a customer' WHERE user_id = $1", [user]);
    await client.query("COMMIT");
    console.log(`committed 2 orders, ${updated.rowCount} user renamed`);
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
}

// Both tables are sharded by user_id, so a join on it stays on one shard.
async function readByJoin(client, user) {
  const { rows } = await client.query(
    `SELECT name, order_id, amount FROM orders JOIN users USING (user_id)
     WHERE user_id = $1 ORDER BY order_id`,
    [user],
  );
  for (const row of rows) console.log(`${row.name}: ${row.order_id} order, ${row.amount}`);
}

// Without a key every shard is asked, and their rows come in any order.
async function readAllShards(client) {
  const { rows } = await client.query("SELECT user_id FROM users WHERE email = $1", [EMAIL]);
  console.log("found on all shards:", rows.map((row) => row.user_id).sort().join(", "));
}

// What pgherd cannot answer exactly it refuses, with a hint. The client can go on.
async function seeARefusal(client) {
  try {
    const { rowCount } = await client.query("SELECT * FROM users ORDER BY name LIMIT 10");
    console.log(`answered with ${rowCount} rows`);
  } catch (refusal) {
    if (!(refusal instanceof pg.DatabaseError)) throw refusal;
    console.log(`refused with ${refusal.code}: ${refusal.message}`);
    console.log(`hint: ${refusal.hint}`);
  }
}

async function cleanUp(client, users) {
  for (const user of users) {
    await client.query("DELETE FROM orders WHERE user_id = $1", [user]);
    await client.query("DELETE FROM users WHERE user_id = $1", [user]);
  }
}

const client = new pg.Client({ connectionString: process.env.DATABASE_URL ?? DEMO });
await client.connect();
try {
  const users = [1, 2, 3, 4, 5, 6].map((n) => `quickstart-node-${n}`);
  await insertUsers(client, users);
  await orderInATransaction(client, users[0]);
  await readByJoin(client, users[0]);
  await readAllShards(client);
  await seeARefusal(client);
  await cleanUp(client, users);
} finally {
  await client.end();
}

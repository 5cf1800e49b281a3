// Prints the notifications of alloc, for ever or as many as told:
//   node listen.mjs [COUNT]
// The database is that of PGHOST, PGPORT, PGUSER and PGDATABASE.
import pg from 'pg';

const client = new pg.Client();
let left = process.argv[2] ? Number(process.argv[2]) : Infinity;

client.on('notification', ({ channel, payload }) => {
	if (left-- > 0) console.log(channel, payload);
	if (left === 0) client.end();
});
await client.connect();
for (const channel of ['alloc_allocated', 'alloc_out_of_stock', 'alloc_events'])
	await client.query(`LISTEN ${channel}`);
console.log('listening');

// An OpenAI-compatible answer as fast as Node can write it: plain sockets, no HTTP library, so that what is measured is the client.
// node server.js [DELAY_MS] [FRAMES] prints its port, then serves until its standard input closes. A request with "stream":true gets FRAMES
// server-sent events, each its own HTTP chunk, in one burst; any other gets 830 bytes of JSON.
'use strict';
const net = require('net');
const delay = Number(process.argv[2] || 0);
const frames = Number(process.argv[3] || 102);
const limits = 'x-ratelimit-limit-requests: 1000000\r\nx-ratelimit-remaining-requests: 999999\r\nx-ratelimit-reset-requests: 1ms\r\n'
  + 'x-ratelimit-limit-tokens: 100000000\r\nx-ratelimit-remaining-tokens: 99999999\r\nx-ratelimit-reset-tokens: 1ms\r\n';

const text = 'A cache keeps what was expensive to make near the place where it is needed again, and forgets what was not. '.repeat(3);
const usage = {prompt_tokens: 24, completion_tokens: 60, total_tokens: 84,
  prompt_tokens_details: {cached_tokens: 0}, completion_tokens_details: {reasoning_tokens: 0}};
const body = JSON.stringify({id: 'chatcmpl-1', object: 'chat.completion', created: 1700000000, model: 'gpt-4.1-mini',
  choices: [{index: 0, message: {role: 'assistant', content: text, refusal: null}, logprobs: null, finish_reason: 'stop'}],
  usage, service_tier: 'default', system_fingerprint: 'fp_1'});
const plain = Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n${limits}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);

function chunk(value) {
  const line = `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`;
  return `${Buffer.byteLength(line).toString(16)}\r\n${line}\r\n`;
}
const shape = (choices, more) => ({id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1700000000, model: 'gpt-4.1-mini', choices, ...more});
const parts = [chunk(shape([{index: 0, delta: {role: 'assistant', content: ''}, finish_reason: null}], {usage: null}))];
for (let i = 0; i < frames - 3; i++) parts.push(chunk(shape([{index: 0, delta: {content: ` word${i}`}, finish_reason: null}], {usage: null})));
parts.push(chunk(shape([{index: 0, delta: {}, finish_reason: 'stop'}], {usage: null})), chunk(shape([], {usage})), chunk('[DONE]'), '0\r\n\r\n');
const stream = Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n${limits}transfer-encoding: chunked\r\n\r\n${parts.join('')}`);

const server = net.createServer({noDelay: true}, (socket) => {
  let held = Buffer.alloc(0);
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    held = held.length ? Buffer.concat([held, data]) : data;
    for (;;) {
      const end = held.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/content-length: *(\d+)/i.exec(held.toString('latin1', 0, end))?.[1] || 0);
      if (held.length < end + 4 + length) return;
      const wanted = /"stream": ?true/.test(held.toString('latin1', end + 4, end + 4 + length)) ? stream : plain;
      held = held.subarray(end + 4 + length);
      if (delay) setTimeout(() => socket.writable && socket.write(wanted), delay); else socket.write(wanted);
    }
  });
});
server.listen(0, '127.0.0.1', 4096, () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();

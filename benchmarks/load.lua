-- What wrk sends, and what it says at its end: one line of JSON.
--   wrk -s load.lua URL -- 0          GET
--   wrk -s load.lua URL -- 65536      POST of so many bytes

function init(args)
   local size = tonumber(args[1] or "0")
   if size > 0 then
      wrk.method = "POST"
      wrk.headers["Content-Type"] = "application/octet-stream"
      wrk.body = string.rep("x", size)
   end
   request_bytes = wrk.format()
end

function request()
   return request_bytes
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "microseconds": %d, "bytes": %d, "errors": %d, "timeouts": %d, "p50": %d, "p99": %d}\n',
      summary.requests, summary.duration, summary.bytes,
      errors.connect + errors.read + errors.write + errors.status, errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end

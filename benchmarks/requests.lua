-- What wrk asks for: GET any of the books, or POST new ones, by keys that follow the first one.

local method, first, count = "GET", 0, 0

function init(arguments)
   method, first = arguments[1], tonumber(arguments[2])
   math.randomseed(first)
end

function request()
   if method == "GET" then
      return wrk.format("GET", "/books/" .. math.random(1, 10000))
   end
   count = count + 1
   return wrk.format(method, string.format("/books/%d", first + count))
end

function done(summary, latency, requests)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   print(string.format("counted %d %d %d", summary.duration, summary.requests, failed))
end

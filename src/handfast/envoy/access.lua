-- The gateway's access check, run by Envoy for each request, between TLS and the service.
--
-- It decides as handfast.access.identify and handfast.access.decide do; a differential test holds the three together.
-- It refuses whatever it cannot decide: every fault in here is a 403. What depends on the certificate alone is worked out
-- once for each certificate and worker and kept under its fingerprint; what depends on the policy is compiled in front of
-- this text as the tables DENIED, ROUTES, TITLES, METHODS, BY, REVISION, AGENT, OWN, LENT, ISSUERS and RULES, and is new with
-- each push. Without authorities of others at its host ISSUERS is false: TLS has said that the certificate is ours then.

local NAMESPACE = "handfast"
local COOKIE = "Handfast_Authorization"
local COOKIE_IN_ANY_CASE = string.lower(COOKIE)
local MOST_CERTIFICATES = 20000
local MOST_COUNTED = 1000

-- DER ---------------------------------------------------------------------------------------------------------------

local byte, sub, char, find = string.byte, string.sub, string.char, string.find

-- One element: its tag, where its content begins, and where the element after it begins.
local function element(der, at, stop)
  local tag, length = byte(der, at, at + 1)
  if not length then error("der: cut off") end
  local from = at + 2
  if length >= 128 then
    local count = length - 128
    if count < 1 or count > 3 then error("der: length") end
    length = 0
    for i = from, from + count - 1 do length = length * 256 + byte(der, i) end
    from = from + count
  end
  if from + length - 1 > stop then error("der: overrun") end
  return tag, from, from + length
end

-- Calls visit(tag, from, next, index) for each element within a content.
local function each(der, from, next, visit)
  local index = 0
  while from < next do
    index = index + 1
    local tag, content, after = element(der, from, next - 1)
    visit(tag, content, after, index)
    from = after
  end
end

local VALUES = {}
for i = 1, 64 do VALUES[byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", i)] = i - 1 end

local function base64_decode(text)
  local out, bits, held = {}, 0, 0
  for i = 1, #text do
    local value = VALUES[byte(text, i)]
    if value then
      held = held * 64 + value
      bits = bits + 6
      if bits >= 8 then
        bits = bits - 8
        out[#out + 1] = char(math.floor(held / 2 ^ bits))
        held = held % 2 ^ bits
      end
    end
  end
  return table.concat(out)
end

local OID = {
  basic_constraints = "\85\29\19",
  extended_key_usage = "\85\29\37",
  subject_alt_name = "\85\29\17",
  certificate_policies = "\85\29\32",
  authority_key_identifier = "\85\29\35",
  common_name = "\85\4\3",
  client_auth = "\43\6\1\5\5\7\3\2",
  rsa = "\42\134\72\134\247\13\1\1\1",
  ec = "\42\134\72\206\61\2\1",
}
local CURVES = {["\42\134\72\206\61\3\1\7"] = true, ["\43\129\4\0\34"] = true, ["\43\129\4\0\35"] = true}
local ED25519 = "\43\101\112"
local WEAK_SIGNATURES = {
  ["\42\134\72\134\247\13\1\1\2"] = true, -- MD2 with RSA
  ["\42\134\72\134\247\13\1\1\4"] = true, -- MD5 with RSA
  ["\42\134\72\134\247\13\1\1\5"] = true, -- SHA-1 with RSA
  ["\42\134\72\206\61\4\1"] = true, -- ECDSA with SHA-1
  ["\42\134\72\206\56\4\3"] = true, -- DSA with SHA-1
}

local function read_key(der, from, next, facts)
  local _, algorithm, after = element(der, from, next - 1)
  local _, oid, parameters = element(der, algorithm, after - 1)
  local name = sub(der, oid, parameters - 1)
  if name == OID.ec then
    local _, curve, stop = element(der, parameters, after - 1)
    if not CURVES[sub(der, curve, stop - 1)] then facts.key = "cert.unsupported-key" end
  elseif name == OID.rsa then
    local _, bitstring, bits_end = element(der, after, next - 1)
    local _, sequence, sequence_end = element(der, bitstring + 1, bits_end - 1)
    local _, modulus, modulus_end = element(der, sequence, sequence_end - 1)
    while byte(der, modulus) == 0 do modulus = modulus + 1 end
    local bits, top = (modulus_end - modulus) * 8, byte(der, modulus)
    while top and top < 128 do bits, top = bits - 1, top * 2 end
    if bits < 2048 then facts.key = "cert.weak-key" end
  elseif name ~= ED25519 then
    facts.key = "cert.unsupported-key"
  end
end

local function read_common_name(der, from, next, facts)
  each(der, from, next, function(_, set, set_end)
    each(der, set, set_end, function(_, attribute, attribute_end)
      local _, oid, value = element(der, attribute, attribute_end - 1)
      if sub(der, oid, value - 1) == OID.common_name then
        local _, text, text_end = element(der, value, attribute_end - 1)
        facts.common_name = sub(der, text, text_end - 1)
      end
    end)
  end)
end

-- Whether it is a general name (RFC 5280, section 4.2.1.6): those of text are ASCII, and addresses have their lengths.
local function is_name(tag, text)
  if tag == 0x81 or tag == 0x82 or tag == 0x86 then return not find(text, "[\128-\255]") end
  return tag == 0xa0 or tag == 0xa4 or tag == 0x88 or tag == 0x87 and (#text == 4 or #text == 16)
end

local READ_EXTENSION = {
  [OID.basic_constraints] = function(der, from, next, facts)
    each(der, from, next, function(tag, content, after)
      -- False is the default, and so left out.
      if tag == 1 then facts.is_ca = sub(der, content, after - 1) == "\255" or error("der: boolean") end
    end)
  end,
  [OID.extended_key_usage] = function(der, from, next, facts)
    facts.has_eku, facts.uses = true, {from, next}
    each(der, from, next, function(_, content, after)
      if sub(der, content, after - 1) == OID.client_auth then facts.client_auth = true end
    end)
  end,
  [OID.subject_alt_name] = function(der, from, next, facts)
    facts.names = {from, next}
    each(der, from, next, function(tag, content, after)
      local text = sub(der, content, after - 1)
      if not is_name(tag, text) then error("der: name") end
      if tag == 0x86 then facts.uris[#facts.uris + 1] = text end
      if tag == 0x82 then facts.dns[#facts.dns + 1] = text end
    end)
  end,
}

-- What is read only where other authorities count: where its content begins, and where the element after it begins.
local FOREIGN = ISSUERS and {[OID.certificate_policies] = "policies", [OID.authority_key_identifier] = "authority_key"}
for name, field in pairs(FOREIGN or {}) do
  READ_EXTENSION[name] = function(_, from, next, facts) facts[field] = {from, next} end
end

local function read_extension(der, from, next, facts)
  local _, oid, at = element(der, from, next - 1)
  local name = sub(der, oid, at - 1)
  if facts.extensions[name] then error("der: extension twice") end
  facts.extensions[name] = true
  local tag, value, after = element(der, at, next - 1)
  if tag == 1 then
    if byte(der, value) ~= 255 then error("der: boolean") end
    tag, value, after = element(der, after, next - 1)
  end
  local read = READ_EXTENSION[name]
  if not read then return end
  local _, content, stop = element(der, value, after - 1)
  read(der, content, stop, facts)
end

local function read_certificate(der)
  local facts = {uris = {}, dns = {}, extensions = {}}
  local _, certificate, certificate_end = element(der, 1, #der)
  local _, tbs, tbs_end = element(der, certificate, certificate_end - 1)
  local _, algorithm, algorithm_end = element(der, tbs_end, certificate_end - 1)
  local _, oid, oid_end = element(der, algorithm, algorithm_end - 1)
  facts.weak_signature = WEAK_SIGNATURES[sub(der, oid, oid_end - 1)]
  local field = 0
  each(der, tbs, tbs_end, function(tag, content, after, index)
    if index == 1 and tag ~= 0xa0 then field = 1 end -- version 1 has no version
    field = field + 1
    if field == 2 then facts.serial = {content, after} end
    if field == 4 then facts.issuer = {content, after} end
    if field == 6 then facts.subject = {content, after}; read_common_name(der, content, after, facts) end
    if field == 7 then read_key(der, content, after, facts) end
    if tag == 0xa3 then
      local _, list, list_end = element(der, content, after - 1)
      each(der, list, list_end, function(_, extension, extension_end) read_extension(der, extension, extension_end, facts) end)
    end
  end)
  return facts
end

-- Identity ----------------------------------------------------------------------------------------------------------

-- The trust domain and path of a SPIFFE id, or nil (SPIFFE-ID, section 2).
local function spiffe(uri)
  if #uri > 2048 then return nil end
  local domain, path = string.match(uri, "^spiffe://([a-z0-9._-]+)(/.+)$")
  if not domain or #domain > 255 then return nil end
  local closed = path .. "/"
  if find(closed, "[^A-Za-z0-9._/-]") or find(closed, "//", 1, true) or find(closed, "/%.%.?/") then return nil end
  return domain, sub(path, 2)
end

-- What keeps a certificate from proving who a client is, or nil; the order is that of handfast.access.identify.
local function unfit(facts)
  if facts.is_ca then return "cert.ca-used-as-leaf" end
  if not facts.has_eku then return "cert.no-eku" end
  if not facts.client_auth then return "cert.eku-without-client-auth" end
  if facts.key then return facts.key end
  if facts.weak_signature then return "cert.weak-signature" end
end

-- What is wrong with the identity in a certificate of ours, or nil.
local function unnamed(facts)
  if #facts.uris == 0 then return "identity.no-uri-san" end
  if #facts.uris > 1 then return "identity.several-uri-sans" end
  if not spiffe(facts.uris[1]) then return "identity.not-a-spiffe-id" end
  for _, lent in ipairs(LENT) do -- only another authority may give such a name
    if facts.uris[1] == lent[1] or lent[2] and sub(facts.uris[1], 1, #lent[1]) == lent[1] then
      return "identity.san-not-allowed"
    end
  end
end

-- Other authorities, as in handfast.access.vouching and handfast.access.authority -------------------------------------

local ISSUER_OF = {}
for _, issuer in ipairs(ISSUERS or {}) do ISSUER_OF[issuer.subject] = issuer end

local function hex(octets) return (string.gsub(octets, ".", function(c) return string.format("%02x", byte(c)) end)) end

-- TLS takes a leaf only straight from a CA that it was given, and no two authorities here have one of the same name.
-- Gives the issuer, and when its CA stops to count.
local function issuer_of(der, facts)
  local issuer = ISSUER_OF[sub(der, facts.issuer[1], facts.issuer[2] - 1)]
  if not issuer or not facts.authority_key or not next(issuer.keys) then return issuer, issuer and issuer.ends end
  local ends = issuer.ends
  each(der, facts.authority_key[1], facts.authority_key[2], function(tag, content, after)
    if tag == 0x80 and after > content then ends = issuer.keys[hex(sub(der, content, after - 1))] end
  end)
  return ends and issuer, ends
end

local function serial_of(der, facts)
  local octets = string.match(sub(der, facts.serial[1], facts.serial[2] - 1), "^%z*(.*)$")
  return octets == "" and "00" or hex(octets)
end

-- What the issuer's revocation list says against a certificate, or nil.
local function counted_out(der, facts, issuer)
  if find(issuer.serials, "," .. serial_of(der, facts) .. ",", 1, true) then return "revocation.revoked" end
  if issuer.revoked then return "revocation.issuer-revoked" end
  if issuer.until_ == 0 then return "revocation.no-crl-for-issuer" end
end

local ATTRIBUTES = {
  [OID.common_name] = "common_name", ["\85\4\10"] = "organization", ["\85\4\11"] = "organizational_unit",
  ["\85\4\6"] = "country", ["\85\4\8"] = "state", ["\85\4\7"] = "locality", ["\85\4\5"] = "serial_number",
  ["\9\146\38\137\147\242\44\100\1\1"] = "user_id",
}
local NAMES = {[0x81] = "email", [0x82] = "dns", [0x86] = "uri"}
local TEXTS = {[0x0c] = true, [0x13] = true, [0x16] = true} -- UTF8String, PrintableString, IA5String

local function append(said, field, value)
  local values = said[field]
  if not values then values = {}; said[field] = values end
  values[#values + 1] = value
end

-- The attributes of a name, each with where its text's content begins and ends, and the tag of that text.
local function each_attribute(der, name, visit)
  each(der, name[1], name[2], function(_, set, set_end)
    each(der, set, set_end, function(_, attribute, attribute_end)
      local _, oid, value = element(der, attribute, attribute_end - 1)
      local tag, text, text_end = element(der, value, attribute_end - 1)
      visit(sub(der, oid, value - 1), TEXTS[tag] and sub(der, text, text_end - 1) or "")
    end)
  end)
end

local function attributes(der, facts)
  local said = {}
  each_attribute(der, facts.subject, function(kind, text) if ATTRIBUTES[kind] then append(said, ATTRIBUTES[kind], text) end end)
  each_attribute(der, facts.issuer, function(kind, text) if kind == OID.common_name then append(said, "issuer_common_name", text) end end)
  local names, uses, policies = facts.names, facts.uses, facts.policies
  if names then each(der, names[1], names[2], function(tag, from, after)
    local text = sub(der, from, after - 1)
    if NAMES[tag] then append(said, NAMES[tag], tag == 0x82 and string.lower(text) or text) end
  end) end
  if uses then each(der, uses[1], uses[2], function(_, from, after) append(said, "eku", sub(der, from, after - 1)) end) end
  if policies then each(der, policies[1], policies[2], function(_, from, after)
    local _, oid, stop = element(der, from, after - 1)
    append(said, "policy", sub(der, oid, stop - 1))
  end) end
  return said
end

local HOLDS = {
  exact = function(value, wanted) return value == wanted end,
  any = function(value) return value ~= "" end,
  prefix = function(value, wanted) return #value > #wanted and sub(value, 1, #wanted) == wanted end,
  suffix = function(value, wanted)
    local head = #value > #wanted and sub(value, -#wanted) == wanted and sub(value, 1, #value - #wanted)
    return head and not find(head, sub(wanted, 1, 1), 1, true)
  end,
}

local function holds(rule, said)
  for _, condition in ipairs(rule.match) do
    local field, kind, wanted, held = condition[1], condition[2], condition[3], false
    for _, value in ipairs(said[field] or {}) do held = held or HOLDS[kind](value, wanted) end
    if not held then return false end
  end
  return true
end

-- The name that a rule gives, or nil: a value becomes part of it only as one whole segment.
local function name_by(rule, said)
  local segments = {}
  for i, segment in ipairs(rule.identity) do
    local values = segment[2] == "" and {segment[1]} or said[segment[2]] or {}
    local value = values[1]
    if #values ~= 1 or not find(value, "^[A-Za-z0-9._-]+$") or value == "." or value == ".." then return nil end
    segments[i] = value
  end
  return table.concat(segments, "/")
end

-- Gives a visitor of another authority its name in our trust domain, or its fault.
local function name_foreign(der, facts, visitor, rules)
  local said = attributes(der, facts)
  for _, uri in ipairs(said.uri or {}) do
    local domain = spiffe(uri)
    if string.lower(sub(uri, 1, 7)) == "spiffe:" and (not domain or domain == OWN) then
      visitor.fault = "identity.san-not-allowed"
      return
    end
  end
  for _, rule in ipairs(rules) do
    if holds(rule, said) then
      local name = name_by(rule, said)
      local identity = name and "spiffe://" .. OWN .. "/" .. name
      if identity and #identity <= 2048 then
        visitor.identity, visitor.name = identity, name
      else
        visitor.fault = "identity.name-unusable"
      end
      return
    end
  end
  visitor.fault = "identity.no-mapping"
end

local NO_SESSION = {renew = math.huge, ends = 0}
local SESSIONS_OF_NOBODY = {__index = function() return NO_SESSION end}
local counted, names_counted = {}, 0

-- Makes a visitor one of another authority: the list's end counts as its own, a session is never minted for it, and Envoy's
-- counters show it under its name. They are kept for ever, and how many names there are is for others to choose: so not each.
local function mark_foreign(visitor, issuer)
  visitor.domain = "!" .. issuer.authority
  visitor.sessions = setmetatable({}, SESSIONS_OF_NOBODY)
  if issuer.asked ~= "" then visitor.asked = issuer end
  visitor.vouched = "spiffe://" .. OWN .. "/!" .. issuer.authority
  if visitor.identity and not counted[visitor.identity] and names_counted < MOST_COUNTED then
    counted[visitor.identity], names_counted = true, names_counted + 1
  end
  if counted[visitor.identity or ""] then visitor.vouched = visitor.identity end
  if issuer.until_ > 0 and issuer.until_ < visitor.ends then
    visitor.ends, visitor.end_code = issuer.until_, "revocation.crl-expired"
  end
end

-- Finds out who vouched for a visitor, and names it or finds its fault.
local function recognise(der, facts, visitor)
  local issuer, ends = issuer_of(der, facts)
  if not issuer then
    visitor.fault, visitor.vouched = "chain.unknown-authority", "spiffe://" .. OWN .. "/!"
    return
  end
  visitor.fault = unfit(facts) or counted_out(der, facts, issuer)
  if issuer.authority == "" then
    visitor.fault = visitor.fault or unnamed(facts)
  else
    if not visitor.fault then name_foreign(der, facts, visitor, RULES[issuer.authority]) end
    mark_foreign(visitor, issuer)
  end
  -- TLS looks at a CA's end in a handshake alone, and never at that of a CA above the one that it was given.
  if ends < visitor.ends then visitor.ends, visitor.end_code = ends, "chain.issuer-expired" end
end

local function printable(text)
  return (string.gsub(text, "[^\32-\36\38-\126]", function(c) return string.format("%%%02X", byte(c)) end))
end

-- X-Forwarded-Client-Cert, each value quoted or of letters that need no quotes.
local function forwarded(fingerprint, subject, visitor, dns)
  local parts = {"By=" .. BY, "Hash=" .. fingerprint, 'Subject="' .. string.gsub(printable(subject), '["\\]', "\\%0") .. '"'}
  if visitor.identity then parts[#parts + 1] = "URI=" .. visitor.identity end
  for _, name in ipairs(dns) do
    if find(name, "^[A-Za-z0-9.*-]+$") then parts[#parts + 1] = "DNS=" .. name end
  end
  return table.concat(parts, ";")
end

local function read_visitor(ssl, fingerprint)
  local pem = string.gsub(ssl:urlEncodedPemEncodedPeerCertificate(), "%%(%x%x)", function(h) return char(tonumber(h, 16)) end)
  local body = string.match(pem, "%-%-%-%-%-BEGIN CERTIFICATE%-%-%-%-%-(.-)%-%-%-%-%-END")
  if not body then error("pem: no certificate") end
  local der, ends = base64_decode(body), ssl:expirationPeerCertificate()
  local facts = read_certificate(der)
  local visitor = {ends = ends, begins = ssl:validFromPeerCertificate(), sessions = {}, verdicts = {}}
  if ISSUERS then recognise(der, facts, visitor) else visitor.fault = unfit(facts) or unnamed(facts) end
  if visitor.fault then return visitor end
  if not visitor.identity then
    visitor.identity = facts.uris[1]
    visitor.domain, visitor.name = spiffe(visitor.identity)
  end
  local subject, dns = ssl:subjectPeerCertificate(), table.concat(facts.dns, ",")
  visitor.fields = {
    identity = visitor.identity, name = visitor.name, ["common-name"] = printable(facts.common_name or ""),
    subject = printable(subject), issuer = printable(ssl:issuerPeerCertificate()), serial = ssl:serialNumberPeerCertificate(),
    fingerprint = fingerprint, dns = printable(dns), ["not-after"] = os.date("!%Y-%m-%dT%H:%M:%SZ", ends),
  }
  visitor.client_cert = ":" .. string.gsub(body, "%s", "") .. ":"
  visitor.forwarded = forwarded(fingerprint, subject, visitor, facts.dns)
  return visitor
end

local visitors, known = {}, 0

local function visitor_of(ssl, fingerprint)
  local read, visitor = pcall(read_visitor, ssl, fingerprint)
  if not read then return {fault = "cert.unreadable"} end
  if known >= MOST_CERTIFICATES then visitors, known = {}, 0 end
  visitor.new = true -- the first request that it is let in with has a record, so that the inventory learns of it
  visitors[fingerprint], known = visitor, known + 1
  return visitor
end

-- What counts against a certificate here and now, or nil.
local function standing(visitor, fingerprint, now)
  if DENIED[fingerprint] then return "revocation.revoked" end
  if visitor.ends then
    if now >= visitor.ends then return visitor.end_code or "cert.expired" end
    if now < visitor.begins then return "cert.not-yet-valid" end
  end
  return visitor.fault
end

-- Responders --------------------------------------------------------------------------------------------------------

-- What the agent learned of a certificate from its authority's responder, or nil. It waits.
local function ask_for(handle, authority)
  local ssl = handle:streamInfo():downstreamSslConnection()
  local answered, headers, body = pcall(handle.httpCall, handle, AGENT,
    {[":method"] = "POST", [":path"] = "/standing", [":authority"] = authority}, ssl:urlEncodedPemEncodedPeerCertificate(), 7000)
  if not answered or not headers or headers[":status"] ~= "200" then return nil end
  local word, ends, renew = string.match(body or "", "^(%a+) (%d+) (%d+)$")
  return word and {word = word, ends = tonumber(ends), renew = tonumber(renew)}
end

local function counts(said, now) return said.word == "revoked" or now < said.ends end

-- Whether a word must not replace one that counts: an agent that began anew knows nothing, and a revocation gives way to "good" alone.
local function knows_less(said, held, now)
  return said.word == "unknown" and held.word == "revoked" or not counts(said, now)
end

-- The word that counts of a visitor, as in handfast.trust.standing. While a good one counts, one request in a few seconds asks anew.
local function word_of(handle, visitor, now)
  local held = visitor.said
  -- A time to ask that is further away than any is of a clock that was set back.
  if held and now < held.renew and held.renew <= now + 60 and (held.word == "unknown" or counts(held, now)) then return held.word end
  if held and counts(held, now) then held.renew = now + 5 end
  local said = ask_for(handle, visitor.asked.authority)
  held, now = visitor.said, os.time() -- another request may have learned it meanwhile
  if not said or held and counts(held, now) and knows_less(said, held, now) then
    said = held and counts(held, now) and held or {word = "unknown", ends = 0}
    said.renew = now + 5
  end
  visitor.said = said
  return counts(said, now) and said.word or "unknown"
end

-- What the responder's word is against a visitor that nothing else is against, or nil. Where it knows nothing, a list that counts
-- decides, and the visitor does not stand in it.
local function disowned(handle, visitor, now)
  local word = word_of(handle, visitor, now)
  if word == "good" then return nil end
  if word == "revoked" then return "revocation.revoked" end
  if os.time() < visitor.asked.instead then return nil end
  if visitor.asked.asked ~= "accept" then return "revocation.status-unknown" end
end

-- Policy ------------------------------------------------------------------------------------------------------------

local function speaks_of(methods, method) return methods == true or methods[method] end

local function matches(rules, visitor, method)
  for _, methods in ipairs(rules.exact[visitor.identity] or {}) do
    if speaks_of(methods, method) then return true end
  end
  for _, rule in ipairs(rules.prefix) do
    if sub(visitor.identity, 1, #rule[1]) == rule[1] and speaks_of(rule[2], method) then return true end
  end
  return false
end

-- The policy's "no" for a visitor (nil: none came) on a route, or false.
local function judge(route, visitor, method)
  if visitor and matches(route.deny, visitor, method) then return "policy.denied" end
  if route.open ~= "anyone" and not visitor then return "client.no-certificate" end
  if route.methods and not route.methods[method] then return "policy.no-match" end
  if route.open or matches(route.allow, visitor, method) then return false end
  return "policy.no-match"
end

local function remembered(route, visitor, method)
  if not visitor then return judge(route, nil, method) end
  local on_route = visitor.verdicts[route]
  if not on_route then on_route = {}; visitor.verdicts[route] = on_route end
  local verdict = on_route[method]
  if verdict == nil then
    verdict = judge(route, visitor, method)
    if METHODS[method] then on_route[method] = verdict end
  end
  return verdict
end

-- Session cookie ----------------------------------------------------------------------------------------------------

-- The token that the agent minted for this certificate and host, asked for when there is none or it nears its end.
local function session(handle, visitor, host, now)
  local held = visitor.sessions[host]
  if held and now < held.renew then return held.token end
  visitor.sessions[host] = {renew = now + 5, token = held and now < held.ends and held.token or nil, ends = held and held.ends or 0}
  local ssl = handle:streamInfo():downstreamSslConnection()
  local answered, headers, body = pcall(handle.httpCall, handle, AGENT,
    {[":method"] = "POST", [":path"] = "/session", [":authority"] = host}, ssl:urlEncodedPemEncodedPeerCertificate(), 1000)
  if answered and headers and headers[":status"] == "200" and body then
    local renew, ends, token = string.match(body, "^(%d+) (%d+) ([A-Za-z0-9._-]+)$")
    if token then visitor.sessions[host] = {renew = tonumber(renew), ends = tonumber(ends), token = token} end
  end
  return visitor.sessions[host].token
end

-- Leaves in the request's cookies exactly the given token, or none; tells whether the client had it already.
local function settle_cookie(headers, token)
  local kept, had, others = {}, false, false
  for i = 0, headers:getNumValues("cookie") - 1 do
    for crumb in string.gmatch(headers:getAtIndex("cookie", i), "[^;]+") do
      local name, value = string.match(crumb, "^%s*([^=%s]*)%s*=?%s*(.-)%s*$")
      if name == COOKIE then
        if token and value == token and not had then had = true else others = true end
      elseif find(string.lower(crumb), COOKIE_IN_ANY_CASE, 1, true) then
        others = true -- some servers end a cookie at a space or a comma, and some do not mind case
      elseif crumb ~= "" then
        kept[#kept + 1] = string.match(crumb, "^%s*(.-)%s*$")
      end
    end
  end
  if had and not others then return true end
  if token then kept[#kept + 1] = COOKIE .. "=" .. token end
  headers:remove("cookie")
  if #kept > 0 then headers:add("cookie", table.concat(kept, "; ")) end
  return had
end

-- Sees to it that the service reads the right token or none, and that the client gets the one it lacks.
local function keep_session(handle, route, visitor, now)
  local token = visitor and session(handle, visitor, route.host, now)
  -- Asking the agent may have waited, and what was had of the handle before does not outlive a wait.
  local had = settle_cookie(handle:headers(), token)
  if token and not had then
    local age = visitor.sessions[route.host].ends - now
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "set_cookie",
      COOKIE .. "=" .. token .. "; Path=/; Max-Age=" .. age .. "; Secure; HttpOnly; SameSite=Lax")
  end
end

-- The request -------------------------------------------------------------------------------------------------------

local function record(info, code, route, visitor, mode)
  local metadata = info:dynamicMetadata()
  metadata:set(NAMESPACE, "code", code)
  metadata:set(NAMESPACE, "mode", mode)
  metadata:set(NAMESPACE, "revision", REVISION)
  metadata:set(NAMESPACE, "host", route and route.host or "")
  metadata:set(NAMESPACE, "route", route and route.path or "")
  metadata:set(NAMESPACE, "identity", visitor and visitor.identity or "")
  if visitor and visitor.vouched then metadata:set(NAMESPACE, "vouched", visitor.vouched) end
end

-- Sets what the service is told of the visitor. Envoy has removed what the client itself sent under these names.
local function introduce(headers, visitor, route)
  headers:replace("client-cert", visitor.client_cert)
  headers:replace("x-forwarded-client-cert", visitor.forwarded)
  headers:replace("x-client-identity", visitor.identity)
  headers:replace("x-client-cn", visitor.fields["common-name"])
  for _, extra in ipairs(route.headers) do headers:replace(extra[1], visitor.fields[extra[2]]) end
end

-- Gives the code and status of a refusal, or nothing.
local function check(handle)
  local info, headers, now = handle:streamInfo(), handle:headers(), os.time()
  local route, method, path = ROUTES[info:routeName()], headers:get(":method"), headers:get(":path") or ""
  if find(path, ";", 1, true) and find(path, "^[^?]*/%.%.?;") then -- some services read '..;' as '..'
    record(info, "request.rejected", route, nil, "enforce")
    return "request.rejected", 400
  end
  local ssl, visitor = info:downstreamSslConnection(), nil
  local fingerprint = ssl and ssl:sha256PeerCertificateDigest() or "" -- empty without a certificate
  if fingerprint ~= "" then
    visitor = visitors[fingerprint] or visitor_of(ssl, fingerprint)
    local against = standing(visitor, fingerprint, now)
    if not against and route and not route.trust[visitor.domain] then against = "identity.foreign-trust-domain" end
    if not against and visitor.asked then
      against = disowned(handle, visitor, now)
      info, headers, now = handle:streamInfo(), handle:headers(), os.time() -- it may have waited
    end
    if against then record(info, against, route, visitor, "enforce"); return against, 403 end
  end
  if not route or route.status then
    local code = route and route.code or "request.no-route"
    record(info, code, route, visitor, "enforce")
    return code, route and route.status or 404
  end
  local against = remembered(route, visitor, method)
  if against then
    record(info, against, route, visitor, route.mode)
    if route.mode ~= "report" then return against, 403 end
  end
  if visitor then
    introduce(headers, visitor, route)
    if visitor.vouched then info:dynamicMetadata():set(NAMESPACE, "vouched", visitor.vouched) end
    if visitor.new then
      visitor.new = nil
      info:dynamicMetadata():set(NAMESPACE, "new", "1")
    end
  end
  if route.session then keep_session(handle, route, visitor, now) end
end

function envoy_on_request(handle)
  local ran, code, status = pcall(check, handle)
  if not ran then
    handle:logErr("handfast: " .. tostring(code))
    code, status = "gateway.fault", 403
    pcall(record, handle:streamInfo(), code, nil, nil, "enforce")
  end
  if code then
    local id = handle:headers():get("x-request-id") or ""
    handle:respond(
      {[":status"] = tostring(status), ["content-type"] = "application/problem+json", ["cache-control"] = "no-store"},
      '{"type":"urn:handfast:' .. code .. '","title":"' .. (TITLES[code] or "refused") .. '","status":' .. status ..
      ',"code":"' .. code .. '","request_id":"' .. id .. '"}\n')
  end
end

-- Each request leaves some garbage. Where little else is held, four times as much as is held may pile up before it is collected.
if collectgarbage("count") < 16384 then collectgarbage("setpause", 400) end

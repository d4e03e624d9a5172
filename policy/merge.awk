# Reads two policies from standard input, an existing one and ours. Prints nothing
# if the existing policy has every statement of ours, else the existing policy with
# the missing statements added.
#
# Statements are compared without Sid and with every list in any order: AWS keeps the
# meaning of a policy, not its text. S3 returns a list of one value as the value.
{ text = text $0 "\n" }

END {
  at = 1
  theirs = parse(statement, source)
  before = substr(text, 1, first - 1)
  after = substr(text, last, at - last)
  existing = version
  for (i = 1; i <= theirs; i++) {
    has[statement[i]] = 1
    merged = merged (i > 1 ? "," : "") source[i]
  }
  for (sid in sids) taken[sid] = 1

  ours = parse(statement, source)
  for (i = 1; i <= ours; i++) {
    if (index(statement[i], "${") && existing != version)
      fail("the Version of the existing policy is not " version ", so ${...} is not a variable in it: change that first")
    if (statement[i] in has) continue
    for (sid in taken) # a Sid is unique in its policy, and optional
      sub("\"Sid\": " sid ",[ \n]*", "", source[i])
    merged = merged (merged == "" ? "" : ",") source[i]
    missing = 1
  }
  if (missing) print pretty(before "[" merged "]" after)
}

function fail(problem) {
  print "s3sink setup: " problem | "cat >&2"
  close("cat >&2")
  exit 1
}

# parse reads a policy. It fills statement with its statements in one form, source
# with the same as they are written, and returns how many there are. The value of
# Statement is between first and last.
function parse(statement, source,   n, name, from, several) {
  split("", sids)
  version = ""
  expect("{")
  while (more("}")) {
    name = string()
    expect(":")
    skip()
    if (name != "\"Statement\"") {
      from = value()
      if (name == "\"Version\"") version = from
      continue
    }
    first = at
    several = substr(text, at, 1) == "["
    if (several) at++
    while (several ? more("]") : n < 1) {
      from = at
      statement[++n] = value()
      source[n] = substr(text, from, at - from)
    }
    last = at
  }
  if (!last) fail("a policy without Statement")
  return n + 0
}

function value(   c) {
  skip()
  c = substr(text, at, 1)
  if (c == "\"") return string()
  if (c == "{") return object()
  if (c == "[") return list()
  if (!match(substr(text, at), /^[-+.0-9A-Za-z]+/)) fail("a policy that is not JSON")
  at += RLENGTH
  return substr(text, at - RLENGTH, RLENGTH)
}

function object(   name, v, members, n) {
  expect("{")
  while (more("}")) {
    name = string()
    expect(":")
    v = value()
    if (name == "\"Sid\"") sids[v] = 1
    else members[++n] = name ":" v
  }
  return "{" sorted(members, n) "}"
}

function list(   values, n) {
  expect("[")
  while (more("]")) values[++n] = value()
  return n == 1 ? values[1] : "[" sorted(values, n) "]"
}

function sorted(values, n,   i, k, v, all) {
  for (i = 2; i <= n; i++) {
    v = values[i]
    for (k = i - 1; k > 0 && values[k] > v; k--) values[k + 1] = values[k]
    values[k + 1] = v
  }
  for (i = 1; i <= n; i++) all = all (i > 1 ? "," : "") values[i]
  return all
}

# string returns a string with its quotes. Characters are written one way: encoders
# are free to escape / & < > and those beyond ASCII.
function string(   from, c) {
  skip()
  if (substr(text, at, 1) != "\"") fail("a policy that is not JSON")
  from = at++
  while ((c = substr(text, at, 1)) != "\"") {
    if (c == "") fail("a policy that is cut off")
    at += c == "\\" ? 2 : 1
  }
  at++
  return unescaped(substr(text, from, at - from))
}

function unescaped(s,   i, k, c, code, all) {
  while ((i = index(s, "\\")) > 0) {
    all = all substr(s, 1, i - 1)
    c = substr(s, i + 1, 1)
    if (c != "u") {
      all = all (c == "/" ? c : "\\" c)
      s = substr(s, i + 2)
      continue
    }
    code = 0
    for (k = 2; k < 6; k++) code = code * 16 + index("123456789abcdef", tolower(substr(s, i + k, 1)))
    if (code < 32 || code == 34 || code == 92 || code > 255) all = all substr(s, i, 6)
    else if (code < 128) all = all sprintf("%c", code)
    else all = all sprintf("%c%c", 192 + int(code / 64), 128 + code % 64)
    s = substr(s, i + 6)
  }
  return all s
}

# more reports whether the object or list goes on, behind a comma if need be.
function more(end) {
  skip()
  if (substr(text, at, 1) == ",") at++
  skip()
  if (substr(text, at, 1) == "") fail("a policy that is cut off")
  if (substr(text, at, 1) != end) return 1
  at++
  return 0
}

function expect(c) {
  skip()
  if (substr(text, at, 1) != c) fail("a policy that is not JSON")
  at++
}

function skip() { while (substr(text, at, 1) ~ /^[ \t\r\n]$/) at++ }

function pretty(json,   c, from, pad, all) {
  text = json
  for (at = 1; (c = substr(text, at, 1)) != "";) {
    from = at
    if (c == "\"") {
      string()
      all = all substr(text, from, at - from)
      continue
    }
    at++
    if (c ~ /^[[{]$/) {
      pad = pad "  "
      all = all c "\n" pad
    } else if (c ~ /^[]}]$/) {
      pad = substr(pad, 3)
      all = all "\n" pad c
    } else if (c == ",") all = all ",\n" pad
    else if (c == ":") all = all ": "
    else if (c !~ /^[ \t\r\n]$/) all = all c
  }
  return all
}

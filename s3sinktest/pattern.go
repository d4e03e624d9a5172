package s3sinktest

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern is text of a policy in which * stands for any characters and ? for
// one. It holds the characters to match, and the two below.
type pattern []rune

const (
	anyRunes rune = -1 - iota
	anyRune
)

// parsePattern reads wild cards and the three escapes of them. A variable that
// is something else is refused: nothing would be put in its place.
func parsePattern(text string) (pattern, error) {
	var p pattern
	for rest := text; rest != ""; {
		if strings.HasPrefix(rest, "${") {
			name, after, _ := strings.Cut(rest[2:], "}")
			if name != "*" && name != "?" && name != "$" {
				return nil, &unsupported{fmt.Sprintf("the variable in %q", text)}
			}
			p, rest = append(p, rune(name[0])), after
			continue
		}
		r, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
		switch r {
		case '*':
			r = anyRunes
		case '?':
			r = anyRune
		}
		p = append(p, r)
	}
	return p, nil
}

// fold is the pattern in lower case.
func (p pattern) fold() pattern {
	out := make(pattern, len(p))
	for i, r := range p {
		out[i] = r
		if r >= 0 {
			out[i] = unicode.ToLower(r)
		}
	}
	return out
}

// String is the text where * and ? stand for themselves.
func (p pattern) String() string {
	var b strings.Builder
	for _, r := range p {
		switch r {
		case anyRunes:
			r = '*'
		case anyRune:
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// matches goes through text once, and back to the last * when it is stuck.
func (p pattern) matches(text string) bool {
	t := []rune(text)
	at, star, retry := 0, -1, 0
	for i := 0; i < len(t); {
		switch {
		case at < len(p) && p[at] == anyRunes:
			star, retry = at, i
			at++
		case at < len(p) && (p[at] == anyRune || p[at] == t[i]):
			at++
			i++
		case star >= 0:
			retry++
			at, i = star+1, retry
		default:
			return false
		}
	}
	for at < len(p) && p[at] == anyRunes {
		at++
	}
	return at == len(p)
}

package s3sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"
)

// lineMaker encodes an event as a line. It is pooled, so that events reuse its
// scratch space.
type lineMaker struct {
	scratch bytes.Buffer
	encoder *json.Encoder
}

var lineMakers = sync.Pool{New: func() any {
	m := new(lineMaker)
	m.encoder = json.NewEncoder(&m.scratch)
	m.encoder.SetEscapeHTML(false) // <, > and & are legal in JSON
	return m
}}

// maxScratch is the largest scratch space that is kept for the next event.
const maxScratch = 64 << 10

func (m *lineMaker) release() {
	if m.scratch.Cap() <= maxScratch {
		m.scratch.Reset()
		lineMakers.Put(m)
	}
}

// line returns the line of event, without a newline. The line is valid until the
// maker is released and the caller of Track may change event.
func (m *lineMaker) line(event any, received time.Time, maxBytes int) ([]byte, error) {
	var line []byte
	var err error
	switch e := event.(type) {
	case json.RawMessage:
		return m.raw(e, maxBytes)
	case []byte:
		return m.raw(e, maxBytes)
	case Event:
		line, err = m.specLine(&e, received)
	case *Event:
		if e == nil {
			return nil, &EventError{Problem: "a nil *Event"}
		}
		line, err = m.specLine(e, received)
	default:
		line, err = m.encode(event, event)
	}
	if err != nil {
		return nil, err
	}
	return line, checkLine(line, maxBytes)
}

// raw checks that b is one JSON object, and returns it as a line.
func (m *lineMaker) raw(b []byte, maxBytes int) ([]byte, error) {
	if len(b) > maxBytes {
		return nil, tooLong(len(b), maxBytes)
	}
	line := bytes.Trim(b, " \t\r\n") // the white space of JSON
	if len(line) == 0 {
		return nil, &EventError{Problem: "no bytes; want one JSON object"}
	}
	if mark := byteOrderMark(line); mark != "" {
		return nil, &EventError{Problem: "JSON that begins with " + mark + "; want UTF-8 without one"}
	}
	if !json.Valid(line) {
		return nil, &EventError{Problem: "not valid JSON; want exactly one object", Err: whyInvalid(line)}
	}
	if bytes.ContainsAny(line, "\n\r") {
		// Line breaks are legal between tokens, but not inside a line.
		m.scratch.Reset()
		if err := json.Compact(&m.scratch, line); err != nil {
			return nil, &EventError{Problem: "not valid JSON", Err: err}
		}
		line = m.scratch.Bytes()
	}
	return line, checkLine(line, maxBytes)
}

// whyInvalid returns the syntax error of b. It uses Unmarshal, because a Decoder
// would accept the first of two values.
func whyInvalid(b []byte) error {
	var v json.RawMessage
	return json.Unmarshal(b, &v)
}

// encode returns the line of value. Its errors describe event, the value that the
// caller of Track knows.
func (m *lineMaker) encode(value, event any) (line []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			// The state of the encoder is unknown after a panic: replace it.
			m.encoder = json.NewEncoder(&m.scratch)
			m.encoder.SetEscapeHTML(false)
			line, err = nil, &EventError{Problem: fmt.Sprintf("encoding %s panicked", culprit(event)), Err: fmt.Errorf("%v", p)}
		}
	}()
	m.scratch.Reset()
	if err := m.encoder.Encode(value); err != nil {
		return nil, &EventError{Problem: culprit(event) + " cannot be encoded as JSON", Err: err}
	}
	return bytes.TrimSuffix(m.scratch.Bytes(), []byte("\n")), nil
}

// checkLine checks every line, whether encoded by the sink or by the caller: its
// length, an object by the first and last byte, no line breaks, valid UTF-8.
func checkLine(line []byte, maxBytes int) error {
	switch {
	case len(line) > maxBytes:
		return tooLong(len(line), maxBytes)
	case len(line) < 2 || line[0] != '{' || line[len(line)-1] != '}':
		return &EventError{Problem: fmt.Sprintf("a line that %s; want one JSON object", describeStart(line))}
	case bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0:
		return &EventError{Problem: "a line break inside the line; want compact JSON"}
	case !utf8.Valid(line):
		return &EventError{Problem: "invalid UTF-8", Err: errors.New("encode the text as UTF-8 or escape it before it becomes JSON")}
	}
	return nil
}

// describeStart describes a line that is not an object, without its content:
// events must not appear in logs.
func describeStart(line []byte) string {
	switch {
	case len(line) == 0:
		return "is empty"
	case line[0] == '{':
		return "does not end with its object"
	case line[0] == '[':
		return "is an array"
	case line[0] == '"':
		return "is a string"
	case bytes.Equal(line, []byte("null")):
		return "is null"
	case byteOrderMark(line) != "":
		return "begins with " + byteOrderMark(line)
	}
	return "is not an object"
}

// byteOrderMark returns the name of the byte order mark at the beginning of text,
// or "". Editors and PowerShell write one, JSON allows none, and it is invisible.
func byteOrderMark(text []byte) string {
	switch {
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return "a byte order mark"
	case bytes.HasPrefix(text, []byte("\xff\xfe")), bytes.HasPrefix(text, []byte("\xfe\xff")):
		return "a byte order mark of UTF-16"
	}
	return ""
}

func tooLong(n, maxBytes int) error {
	return &EventError{Problem: fmt.Sprintf("%d bytes; MaxEventBytes is %d", n, maxBytes)}
}

package s3sink

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"
)

// Given any bytes, then an accepted line is the same object on one line.
func FuzzRawLine(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, "{\n}", `[]`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{}{}`, " {\"a\"\r\n: [ 1 ] } ", "\ufeff{}", "{}\u00a0", "{}\v", "\f{}", "\u2028{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := lineMakers.Get().(*lineMaker)
		defer m.release()
		before := bytes.Clone(raw)
		line, err := m.line(raw, time.Time{}, DefaultMaxEventBytes)
		if !bytes.Equal(raw, before) {
			t.Fatal("the argument was changed")
		}
		var given, taken map[string]any
		isObject := json.Unmarshal(raw, &given) == nil && given != nil && utf8.Valid(raw)
		if err != nil {
			if isObject {
				t.Fatalf("%q refused: %v", raw, err)
			}
			return
		}
		if bytes.ContainsAny(line, "\r\n") || json.Unmarshal(line, &taken) != nil || !reflect.DeepEqual(given, taken) {
			t.Fatalf("%q became %q", raw, line)
		}
	})
}

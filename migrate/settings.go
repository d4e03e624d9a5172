package migrate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
)

// SettingsError is a key of settings that [FromSegment] or [FromRudderStack] cannot
// use. It holds no value, because that may be a secret.
type SettingsError struct {
	Key  string // as in the settings, for example "config.iamRoleARN"; "" for the settings as a whole
	Want string // the form that the value must have
}

func (e *SettingsError) Error() string {
	if e.Key == "" {
		return "s3sink: settings: want " + e.Want
	}
	return fmt.Sprintf("s3sink: settings: %s: want %s", e.Key, e.Want)
}

// settingsReader parses settings, and collects their errors and the keys without
// effect.
type settingsReader struct {
	root      *settings
	objects   []*settings // root, and the objects in it that were read
	errs      []error
	templates bool // RudderStack's server replaces env.NAME and {{…}}; no value may have them
}

// settings is one JSON object of the settings.
type settings struct {
	reader *settingsReader
	path   string // precedes its keys in errors, such as "config."
	pairs  []setting
}

type setting struct {
	key   string
	value json.RawMessage
	used  bool
}

func readSettings(text []byte) (*settingsReader, error) {
	var whole json.RawMessage
	var broken *json.SyntaxError
	if err := json.Unmarshal(text, &whole); errors.As(err, &broken) {
		// The error itself quotes a byte of the text, which may be a secret.
		return nil, &SettingsError{Want: fmt.Sprintf("JSON; it is broken at byte %d", broken.Offset)}
	}
	if !bytes.HasPrefix(whole, []byte("{")) {
		return nil, &SettingsError{Want: "a JSON object"}
	}
	r := new(settingsReader)
	r.root = r.object("", whole)
	return r, nil
}

// object parses a JSON object. It keeps duplicate keys.
func (r *settingsReader) object(path string, text json.RawMessage) *settings {
	s := &settings{reader: r, path: path}
	r.objects = append(r.objects, s)
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil { // the brace
		return s
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			break // cannot happen: the text was parsed before
		}
		p := setting{key: fmt.Sprint(key)}
		if err := dec.Decode(&p.value); err != nil {
			break
		}
		s.pairs = append(s.pairs, p)
	}
	return s
}

// exactly compares the keys that RudderStack compares exactly. Its decoder,
// mapstructure, compares all others as strings.EqualFold does.
func exactly(a, b string) bool { return a == b }

// find returns the pairs of a key that has several names, and marks them as used.
// It leaves out pairs whose value is null.
func (s *settings) find(equal func(a, b string) bool, names ...string) (found []setting) {
	for i := range s.pairs {
		p := &s.pairs[i]
		if !slices.ContainsFunc(names, func(name string) bool { return equal(name, p.key) }) {
			continue
		}
		p.used = true
		if string(p.value) != "null" {
			found = append(found, *p)
		}
	}
	return found
}

// name returns the name that a key has in these settings, or the first of names.
func (s *settings) name(names ...string) string {
	for _, p := range s.pairs {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, p.key) }) {
			return s.path + p.key
		}
	}
	return s.path + names[0]
}

func (s *settings) wrong(want string, names ...string) {
	s.reader.wrong(s.name(names...), want)
}

func (r *settingsReader) wrong(key, want string) {
	r.errs = append(r.errs, &SettingsError{Key: key, Want: want})
}

// differ reports pairs whose values contradict each other.
func (s *settings) differ(a, b setting) {
	if a.key == b.key {
		s.reader.wrong(s.path+a.key, "it once: it is there twice, with different values")
		return
	}
	s.reader.wrong(s.path+a.key+" and "+s.path+b.key, "one of them, or the same in both")
}

// text returns a string, or "" for none.
func (s *settings) text(names ...string) (value string) {
	var from setting
	for _, p := range s.find(strings.EqualFold, names...) {
		var text string
		if json.Unmarshal(p.value, &text) != nil {
			s.reader.wrong(s.path+p.key, "a string, in quotes")
			continue
		}
		template := strings.HasPrefix(text, "env.") || strings.HasPrefix(text, "{{")
		switch {
		case text == "":
		case s.reader.templates && template:
			s.reader.wrong(s.path+p.key, "the value itself: env.NAME and {{…}} are filled in by RudderStack's server")
		case value == "":
			value, from = text, p
		case value != text:
			s.differ(from, p)
		}
	}
	return value
}

// flag returns a boolean, and whether it is there. It refuses "true" in quotes, as
// RudderStack's decoder and Segment's API do: such settings never worked, and the
// meaning of "no" or "0" is unknown.
func (s *settings) flag(found []setting) (value, set bool) {
	var from setting
	for _, p := range found {
		var flag bool
		switch {
		case json.Unmarshal(p.value, &flag) != nil:
			s.reader.wrong(s.path+p.key, "true or false, without quotes")
		case !set:
			value, set, from = flag, true, p
		case value != flag:
			s.differ(from, p)
		}
	}
	return value, set
}

func (s *settings) on(name string) bool {
	value, _ := s.flag(s.find(strings.EqualFold, name))
	return value
}

func (s *settings) off(name string) bool {
	value, set := s.flag(s.find(strings.EqualFold, name))
	return set && !value
}

// object returns an inner object, or nil.
func (s *settings) object(name string) *settings {
	found := s.find(strings.EqualFold, name)
	switch {
	case len(found) == 0:
		return nil
	case len(found) > 1:
		s.differ(found[0], found[1])
		return nil
	case found[0].value[0] != '{':
		s.reader.wrong(s.path+found[0].key, "an object")
		return nil
	}
	return s.reader.object(s.path+found[0].key+".", found[0].value)
}

// skip marks keys as used that only describe the destination.
func (s *settings) skip(names ...string) { s.find(strings.EqualFold, names...) }

func (s *settings) skipAll() {
	for i := range s.pairs {
		s.pairs[i].used = true
	}
}

// unused marks keys as not used again.
func (s *settings) unused(names ...string) {
	for i := range s.pairs {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, s.pairs[i].key) }) {
			s.pairs[i].used = false
		}
	}
}

// check reports every problem that New would find in cfg, by its key in the
// settings and without the value. The caller may set SourceID later.
func (r *settingsReader) check(cfg *s3sink.Config, keys map[string]string) {
	c := *cfg
	c.SourceID = cmp.Or(c.SourceID, "any")
	for _, err := range eachError(c.Check()) {
		var e *s3sink.ConfigError
		switch {
		case !errors.As(err, &e) || keys[e.Field] == "": // of an argument
			r.errs = append(r.errs, err)
		case !r.told(keys[e.Field]):
			r.wrong(keys[e.Field], e.Want)
		}
	}
}

// eachError returns the errors that err joins.
func eachError(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

// told reports whether an error names the key.
func (r *settingsReader) told(key string) bool {
	return slices.ContainsFunc(r.errs, func(err error) bool {
		var e *SettingsError
		return errors.As(err, &e) && e.Key == key
	})
}

// isEmpty reports whether a value is null, or an empty string, list or object.
func (p *setting) isEmpty() bool {
	var v bytes.Buffer
	if err := json.Compact(&v, p.value); err != nil {
		return false
	}
	return slices.Contains([]string{"null", `""`, "[]", "{}"}, v.String())
}

func (r *settingsReader) result(cfg s3sink.Config) (s3sink.Config, []string, error) {
	if len(r.errs) > 0 {
		return s3sink.Config{}, nil, errors.Join(r.errs...)
	}
	var ignored []string
	for _, s := range r.objects {
		for _, p := range s.pairs {
			if !p.used && !p.isEmpty() {
				ignored = append(ignored, s.path+p.key)
			}
		}
	}
	return cfg, ignored, nil
}

package s3sink

import (
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// maxPath is the greatest number of steps in the path that [culprit] returns.
const maxPath = 32

// culprit returns the path of the part of an event that encoding/json cannot
// encode, such as `Properties["price"] of an Event`. The error of encoding/json
// names only the type or the value, and an event may have hundreds of them.
// culprit encodes the parts of the event again, so it is called only after an
// error.
func culprit(event any) string {
	name := fmt.Sprintf("a %T", event)
	if _, ok := event.(Event); ok {
		name = "an Event"
	}
	var path strings.Builder
	seen := map[visit]bool{}
	for v, steps := reflect.ValueOf(event), 0; steps < maxPath; steps++ {
		step, part, found := refusedPart(v, seen)
		if !found {
			break
		}
		path.WriteString(step)
		v = part
	}
	if path.Len() == 0 {
		return name
	}
	return strings.TrimPrefix(path.String(), ".") + " of " + name
}

// visit is a pointer or a map on the path to a part.
type visit struct {
	at   uintptr
	kind reflect.Type // a struct and its first field have the same address
}

// refusedPart returns the first part of v that cannot be encoded, and the step of
// the path that leads to it. seen holds the visits so far, to end at a cycle.
func refusedPart(v reflect.Value, seen map[visit]bool) (step string, part reflect.Value, found bool) {
	for v.IsValid() && !encodesItself(v) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Map:
			here := visit{v.Pointer(), v.Type()}
			if seen[here] {
				return "", v, false
			}
			seen[here] = true
		}
		if v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface {
			break
		}
		v = v.Elem()
	}
	if !v.IsValid() || encodesItself(v) {
		return "", v, false
	}
	switch v.Kind() {
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return "", v, false
		}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			if part := v.MapIndex(key); !encodes(part) {
				return fmt.Sprintf("[%q]", key), part, true
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if part := v.Index(i); !encodes(part) {
				return fmt.Sprintf("[%d]", i), part, true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if part := v.Field(i); part.CanInterface() && v.Type().Field(i).Tag.Get("json") != "-" && !encodes(part) {
				return "." + v.Type().Field(i).Name, part, true
			}
		}
	}
	return "", v, false
}

// encodesItself reports whether a method of the value encodes it.
func encodesItself(v reflect.Value) bool {
	switch v.Interface().(type) {
	case json.Marshaler, encoding.TextMarshaler:
		return true
	}
	return false
}

func encodes(v reflect.Value) (ok bool) {
	defer func() { ok = recover() == nil && ok }()
	return json.NewEncoder(io.Discard).Encode(v.Interface()) == nil
}

package policy

import (
	"encoding/json"
	"strings"
)

// Document is an IAM policy document.
type Document struct {
	Version   string
	Statement []Statement
}

// Statement is one statement of a [Document].
type Statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Principal map[string]string `json:",omitempty"` // in policies that belong to a resource
	Action    []string
	Resource  []string                       `json:",omitempty"`
	Condition map[string]map[string][]string `json:",omitempty"`
}

// String returns the document as indented JSON.
func (d Document) String() string { return encode(d, "  ") }

// Compact returns the document as JSON without spaces. The limit of STS for a
// session policy counts spaces.
func (d Document) Compact() string { return encode(d, "") }

// String returns the statement as JSON in one line.
func (s Statement) String() string { return encode(s, "") }

func encode(document any, indent string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(document); err != nil {
		return "" // strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// allow returns a document whose statements all have the effect Allow.
func allow(statements ...Statement) Document {
	for i := range statements {
		statements[i].Effect = "Allow"
	}
	return Document{Version: "2012-10-17", Statement: statements}
}

// literal escapes text so that IAM reads no character of it as a wildcard or a
// variable. IAM refuses documents with characters beyond U+00FF: each of those
// becomes the wildcard *.
func literal(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case strings.ContainsRune("*?$", r):
			b.WriteString("${" + string(r) + "}")
		case r > 0xff:
			b.WriteByte('*')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/examples/internal/terminal"
)

// printer writes what was found: as text, at once; or as one JSON object, at
// the end.
type printer struct {
	w     io.Writer
	json  bool
	color bool
	all   answer
}

// answer is what -json prints.
type answer struct {
	// Policies have the form that -print asks for: documents, files by name,
	// or a script.
	Policies      any                      `json:"policies,omitempty"`
	Report        *s3sink.ValidationReport `json:"report,omitempty"`
	Demonstration *demonstration           `json:"demonstration,omitempty"`
	Error         string                   `json:"error,omitempty"`
}

// document is one policy in JSON.
type document struct {
	Kind   s3sink.PolicyKind `json:"kind"`
	Of     string            `json:"of"`
	Why    string            `json:"why"`
	Policy s3sink.Policy     `json:"policy"`
}

func newPrinter(stdout io.Writer, asJSON bool) *printer {
	return &printer{w: stdout, json: asJSON, color: colored(terminal.Is(stdout), os.Getenv)}
}

func documents(policies s3sink.Policies) []document {
	var all []document
	for _, d := range policies {
		all = append(all, document{d.Kind, d.Of, d.Why, d.Policy})
	}
	return all
}

func (p *printer) policies(form, dir string, policies s3sink.Policies) error {
	files := policies.Terraform()
	if dir != "" {
		if err := writeFiles(dir, files); err != nil {
			return err
		}
	}
	if p.json {
		p.all.Policies = map[string]any{asJSON: documents(policies), asCLI: policies.CLI(), asTerraform: files}[form]
		return nil
	}
	switch {
	case form == asCLI:
		p.text("%s", policies.CLI())
	case form == asJSON:
		p.text("%s", policies)
	case dir == "":
		for i, name := range slices.Sorted(maps.Keys(files)) {
			p.text("%s# %s\n\n%s", map[bool]string{false: "\n"}[i == 0], name, files[name])
		}
	default:
		for _, name := range slices.Sorted(maps.Keys(files)) {
			p.text("%s\n", filepath.Join(dir, filepath.FromSlash(name)))
		}
	}
	return nil
}

func (p *printer) report(report *s3sink.ValidationReport) {
	p.all.Report = report
	p.text("%s", p.render(report))
}

// render returns the report for people.
func (p *printer) render(report *s3sink.ValidationReport) string {
	if !p.color {
		return report.String()
	}
	var b strings.Builder
	report.WriteColored(&b) // a Builder takes everything
	return b.String()
}

// text prints for people alone.
func (p *printer) text(format string, args ...any) {
	if !p.json {
		fmt.Fprintf(p.w, format, args...)
	}
}

// finish prints the JSON object, which says so if something went wrong.
func (p *printer) finish(err error) error {
	if !p.json {
		return nil
	}
	if err != nil {
		p.all.Error = err.Error()
	}
	e := json.NewEncoder(p.w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(p.all)
}

// documentsFile is the one file of the module that no other module has.
const documentsFile = "policies/outputs.tf"

// writeFiles writes the module, over an earlier one if need be, but over nothing
// else.
func writeFiles(dir string, files map[string]string) error {
	path := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	first, _, _ := strings.Cut(files[documentsFile], "\n")
	old, err := os.ReadFile(path(documentsFile))
	ours := err == nil && strings.HasPrefix(string(old), first+"\n")
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if _, err := os.Lstat(path(name)); err == nil && !ours {
			return fmt.Errorf("-dir: %s was not written by this program; choose another directory", path(name))
		}
	}
	for _, name := range names {
		err := os.MkdirAll(filepath.Dir(path(name)), 0o755)
		if err == nil {
			err = os.WriteFile(path(name), []byte(files[name]), 0o644)
		}
		if err != nil {
			return fmt.Errorf("-dir: %w", err)
		}
	}
	return nil
}

package s3sinktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// policyVersion is the version of the policy language. The older one, which is
// meant when a document names none, has no variables.
const policyVersion = "2012-10-17"

// policy is a policy document of AWS, ready to be asked. A nil policy is none.
type policy struct{ statements []statement }

type statement struct {
	denies     bool
	principals []string // nil in policies of identities and sessions
	actions    []pattern
	resources  []pattern
	conditions []condition
}

// unsupported is a policy that AWS may accept and this package does not: it
// says so, rather than allow or deny by a guess.
type unsupported struct{ what string }

func (u *unsupported) Error() string {
	return "s3sinktest does not support " + u.what + " in policies"
}

// policyError is a policy that AWS refuses, in its words as far as those are
// known.
type policyError string

func (e policyError) Error() string { return string(e) }

const (
	errPolicyJSON     = policyError("This policy contains invalid Json")
	errPolicySyntax   = policyError("Syntax errors in policy.")
	errNoActions      = policyError("Policy statement must contain actions.")
	errNoVendor       = policyError("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
	errNoResources    = policyError("Policy statement must contain resources.")
	errPrincipal      = policyError("Policy document should not specify a principal.")
	errWrongPrincipal = policyError("Invalid principal in policy")
)

type policyJSON struct {
	Version   string
	ID        string `json:"Id"`
	Statement oneOrMore[statementJSON]
}

type statementJSON struct {
	Sid          string
	Effect       string
	Principal    json.RawMessage
	NotPrincipal json.RawMessage
	Action       oneOrMore[string]
	NotAction    oneOrMore[string]
	Resource     oneOrMore[string]
	NotResource  oneOrMore[string]
	Condition    map[string]map[string]oneOrMore[scalar]
}

// oneOrMore is a value where a policy may have a list of them.
type oneOrMore[T any] []T

func (l *oneOrMore[T]) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '[' {
		var list []T
		err := strictly(text, &list)
		*l = list
		return err
	}
	var one T
	err := strictly(text, &one)
	*l = []T{one}
	return err
}

// scalar is a string, or a bool that may be written without quotes.
type scalar string

func (s *scalar) UnmarshalJSON(text []byte) error {
	if t := string(text); t == "true" || t == "false" {
		*s = scalar(t)
		return nil
	}
	return json.Unmarshal(text, (*string)(s))
}

func strictly(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// parsePolicy reads the policy of a user, a role or a session.
func parsePolicy(text string) (*policy, error) { return readPolicy(text, false) }

// parseResourcePolicy reads the policy of a bucket or a key. Its statements have
// principals.
func parseResourcePolicy(text string) (*policy, error) { return readPolicy(text, true) }

// mustPolicy is for policies that a test sets: a policy that cannot be read is a
// mistake in the test. No text is no policy.
func mustPolicy(what, text string, parse func(string) (*policy, error)) *policy {
	if text == "" {
		return nil
	}
	p, err := parse(text)
	if err != nil {
		panic(fmt.Sprintf("s3sinktest: policy of %s: %v\n%s", what, err, text))
	}
	return p
}

func readPolicy(text string, ofResource bool) (*policy, error) {
	if !json.Valid([]byte(text)) {
		return nil, errPolicyJSON
	}
	var doc *policyJSON
	if err := strictly([]byte(text), &doc); err != nil || doc == nil || doc.Statement == nil {
		return nil, errPolicySyntax
	}
	if doc.Version != policyVersion {
		return nil, &unsupported{fmt.Sprintf("version %q", doc.Version)}
	}
	p := new(policy)
	for _, from := range doc.Statement {
		st, err := from.statement(ofResource)
		if err != nil {
			return nil, err
		}
		p.statements = append(p.statements, st)
	}
	return p, nil
}

func (from statementJSON) statement(ofResource bool) (st statement, err error) {
	switch {
	case from.Effect != "Allow" && from.Effect != "Deny":
		return st, errPolicySyntax
	case from.NotAction != nil || from.NotResource != nil || from.NotPrincipal != nil:
		return st, &unsupported{"NotAction, NotResource and NotPrincipal"}
	case len(from.Action) == 0:
		return st, errNoActions
	case len(from.Resource) == 0:
		return st, errNoResources
	case from.Principal != nil && !ofResource:
		return st, errPrincipal
	}
	st.denies = from.Effect == "Deny"
	if st.actions, err = parsePatterns(from.Action, checkAction); err != nil {
		return st, err
	}
	if st.resources, err = parsePatterns(from.Resource, checkResource); err != nil {
		return st, err
	}
	for i, p := range st.actions {
		st.actions[i] = p.fold() // IAM compares actions without case
	}
	if ofResource {
		if st.principals, err = parsePrincipals(from.Principal); err != nil {
			return st, err
		}
	}
	st.conditions, err = parseConditions(from.Condition)
	return st, err
}

func parsePatterns(texts []string, check func(string) error) ([]pattern, error) {
	var list []pattern
	for _, text := range texts {
		if err := check(text); err != nil {
			return nil, err
		}
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

var actionName = regexp.MustCompile(`^[a-zA-Z0-9-]+:[a-zA-Z0-9*?]+$`)

func checkAction(text string) error {
	if text != "*" && !actionName.MatchString(text) {
		return errNoVendor
	}
	return nil
}

func checkResource(text string) error {
	if text != "*" && !(strings.HasPrefix(text, "arn:") && strings.Count(text, ":") >= 5) {
		return policyError(fmt.Sprintf("Resource %s must be in ARN format or \"*\".", text))
	}
	return nil
}

// verdict is what one policy says to a request.
type verdict int

const (
	silent    verdict = iota
	delegates         // it leaves the decision to the policies of the principal's account
	allows
	denies
)

// ask returns the strongest thing that the policy says. A statement for
// principals counts as weaker when it names only their account.
func (p *policy) ask(q question) verdict {
	said := silent
	if p == nil {
		return said
	}
	for _, st := range p.statements {
		switch as := st.applies(q); {
		case as == silent:
		case st.denies:
			return denies
		default:
			said = max(said, as)
		}
	}
	return said
}

func (st statement) applies(q question) verdict {
	action := strings.ToLower(q.action)
	if !slices.ContainsFunc(st.actions, func(p pattern) bool { return p.matches(action) }) ||
		!slices.ContainsFunc(st.resources, func(p pattern) bool { return p.matches(q.resource) }) {
		return silent
	}
	for _, c := range st.conditions {
		if !c.holds(q.context) {
			return silent
		}
	}
	if st.principals == nil {
		return allows
	}
	return q.who.among(st.principals)
}

package s3sinktest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// question is what policies are asked.
type question struct {
	who      principal
	action   string // s3:PutObject
	resource string // its ARN
	isKey    bool   // the resource is a KMS key
	context  map[string]string
}

// decide answers a question by AWS's rules for one resource of an account and
// its policy. It returns "", or the end of the sentence with which AWS refuses. An explicit Deny wins. Without one the session policy has to
// allow, if there is one, and so has the identity's policy. In the resource's
// own account a statement that names the principal does for the latter; for
// other accounts the resource's policy has to allow as well. A KMS key's has to
// in its own account too, if only by leaving it to the account:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
//
// One rule is missing: a resource's policy that names a single session is not
// bounded by that session's policy in AWS, and is here.
func (s *Server) decide(q question, ofResource verdict, owner string) string {
	identity, session := s.identityVerdict(q), q.who.sessionVerdict(q)
	for _, by := range []struct {
		verdict verdict
		kind    string
	}{{identity, "an identity-based"}, {session, "a session"}, {ofResource, "a resource-based"}} {
		if by.verdict == denies {
			return "with an explicit deny in " + by.kind + " policy"
		}
	}
	foreign := account(q.who.arn) != owner
	missing := ""
	switch {
	case (foreign || q.isKey) && ofResource == silent:
		missing = "resource-based"
	case identity != allows && (foreign || ofResource != allows):
		missing = "identity-based"
	case session != allows:
		missing = "session"
	default:
		return ""
	}
	return "because no " + missing + " policy allows the " + q.action + " action"
}

// identityVerdict asks the policy of the user or the role. One without a policy
// may do everything.
func (s *Server) identityVerdict(q question) verdict {
	p := q.who.policy
	if q.who.role != "" {
		s.mu.Lock()
		p = s.roles[q.who.role].policy
		s.mu.Unlock()
	}
	if p == nil {
		return allows
	}
	return p.ask(q)
}

func (who principal) sessionVerdict(q question) verdict {
	if who.session == nil {
		return allows
	}
	return who.session.ask(q)
}

// denial is AWS's sentence. S3 quotes the resource; STS and KMS do not.
func (q question) denial(quoted bool, reason string) *apiError {
	resource := q.resource
	if quoted {
		resource = `"` + resource + `"`
	}
	return accessDenied(strings.TrimSpace(fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s %s",
		q.who.arn, q.action, resource, reason)))
}

// among says how far a statement's principals cover this one.
func (who principal) among(principals []string) verdict {
	said := silent
	for _, p := range principals {
		switch p {
		case "": // names no principal; who.role is empty too when who is no role
		case "*", who.arn, who.role:
			return allows
		case account(who.arn), accountRoot(who.arn):
			said = delegates
		}
	}
	return said
}

// accountRoot is how policies name the account of an ARN.
func accountRoot(arn string) string {
	return "arn:" + partition(arn) + ":iam::" + account(arn) + ":root"
}

// account is the fifth field of an ARN.
func account(arn string) string { return arnField(arn, 4) }

func partition(arn string) string { return arnField(arn, 1) }

func arnField(arn string, i int) string {
	if fields := strings.Split(arn, ":"); len(fields) > i {
		return fields[i]
	}
	return ""
}

// partitionOf is the partition that a region belongs to.
func partitionOf(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

var awsPrincipal = regexp.MustCompile(`^(\*|[0-9]{12}|arn:aws(-[a-z]+)*:(iam|sts)::[0-9]{12}:(root|(user|role|assumed-role)/[^*?]+))$`)

// parsePrincipals takes "*" and {"AWS": …}. Services are left out: no request
// comes from one.
func parsePrincipals(text json.RawMessage) ([]string, error) {
	principals := []string{} // not nil, also when no caller can be among them
	if string(text) == `"*"` {
		return append(principals, "*"), nil
	}
	var from struct{ AWS, Service, Federated, CanonicalUser oneOrMore[string] }
	switch err := strictly(text, &from); {
	case err != nil:
		return nil, errWrongPrincipal
	case from.Federated != nil || from.CanonicalUser != nil:
		return nil, &unsupported{"principals that are Federated or CanonicalUser"}
	case len(from.AWS)+len(from.Service) == 0:
		return nil, errWrongPrincipal
	}
	for _, p := range from.AWS {
		if !awsPrincipal.MatchString(p) {
			return nil, errWrongPrincipal
		}
		principals = append(principals, p)
	}
	return principals, nil
}

// trusts is what the role's trust policy says of the caller.
func (r Role) trusts(who principal, externalID string) verdict {
	if r.ExternalID != "" && r.ExternalID != externalID {
		return silent
	}
	return who.among(r.TrustedPrincipals)
}

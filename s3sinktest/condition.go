package s3sinktest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// condition is one operator on one key of a statement:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
type condition struct {
	key      string // lower case: IAM compares keys without it
	operator operator
	values   []pattern
	ifExists bool
}

// operator reports whether a value of the request matches a value of the
// policy. A negated operator holds when no value matches, also when there is none.
type operator struct {
	suits    func(policy pattern, request string) bool
	negative bool
	boolean  bool // the policy's values are true and false
}

func equal(p pattern, request string) bool     { return p.String() == request }
func equalFold(p pattern, request string) bool { return strings.EqualFold(p.String(), request) }

const nullOperator = "Null"

var operators = map[string]operator{
	"StringEquals":              {suits: equal},
	"StringNotEquals":           {suits: equal, negative: true},
	"StringEqualsIgnoreCase":    {suits: equalFold},
	"StringNotEqualsIgnoreCase": {suits: equalFold, negative: true},
	"StringLike":                {suits: pattern.matches},
	"StringNotLike":             {suits: pattern.matches, negative: true},
	"Bool":                      {suits: equalFold, boolean: true},
	nullOperator:                {boolean: true},
}

// conditionKeys are what requests have of [question.context].
var conditionKeys = []string{
	"aws:securetransport",
	"kms:viaservice",
	"s3:if-none-match",
	"s3:x-amz-acl",
	"s3:x-amz-server-side-encryption",
	"s3:x-amz-server-side-encryption-aws-kms-key-id",
	"s3:x-amz-storage-class",
	"sts:externalid",
}

func parseConditions(from map[string]map[string]oneOrMore[scalar]) ([]condition, error) {
	var list []condition
	for _, name := range slices.Sorted(maps.Keys(from)) {
		for _, key := range slices.Sorted(maps.Keys(from[name])) {
			c, err := parseCondition(name, key, from[name][key])
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
	}
	return list, nil
}

func parseCondition(name, key string, values []scalar) (c condition, err error) {
	c.key = strings.ToLower(key)
	if !slices.Contains(conditionKeys, c.key) {
		return c, &unsupported{fmt.Sprintf("the condition key %q", key)}
	}
	base, ifExists := strings.CutSuffix(name, "IfExists")
	op, ok := operators[base]
	if !ok || ifExists && base == nullOperator {
		return c, &unsupported{fmt.Sprintf("the condition operator %q", name)}
	}
	c.operator, c.ifExists = op, ifExists
	for _, v := range values {
		text := string(v)
		if op.boolean && !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
			return c, errPolicySyntax
		}
		p, err := parsePattern(text)
		if err != nil {
			return c, err
		}
		c.values = append(c.values, p)
	}
	if len(values) == 0 {
		return c, errPolicySyntax
	}
	return c, nil
}

func (c condition) holds(context map[string]string) bool {
	value, exists := context[c.key]
	if c.operator.suits == nil { // Null: true asks for the key to be absent
		return slices.ContainsFunc(c.values, func(p pattern) bool { return equalFold(p, "true") != exists })
	}
	if !exists {
		return c.ifExists || c.operator.negative
	}
	suits := slices.ContainsFunc(c.values, func(p pattern) bool { return c.operator.suits(p, value) })
	return suits != c.operator.negative
}

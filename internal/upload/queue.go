package upload

// bySequence is a heap of items, lowest sequence first.
type bySequence []*item

func (q bySequence) Len() int           { return len(q) }
func (q bySequence) Less(i, j int) bool { return q[i].seg.Sequence < q[j].seg.Sequence }
func (q bySequence) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *bySequence) Push(x any)        { *q = append(*q, x.(*item)) }
func (q *bySequence) Pop() any          { return pop((*[]*item)(q)) }

// byTime is a heap of items, earliest notBefore first.
type byTime []*item

func (q byTime) Len() int           { return len(q) }
func (q byTime) Less(i, j int) bool { return q[i].notBefore.Before(q[j].notBefore) }
func (q byTime) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *byTime) Push(x any)        { *q = append(*q, x.(*item)) }
func (q *byTime) Pop() any          { return pop((*[]*item)(q)) }

func pop(q *[]*item) *item {
	last := len(*q) - 1
	it := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return it
}

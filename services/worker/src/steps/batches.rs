//! Divides lists into batches of a bounded size. Must never reorder or drop an item.

/// Returns batches of at most `most` bytes, in order. One item may exceed it alone.
pub(crate) fn batches<T>(items: Vec<T>, most: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for item in items {
        let size = size(&item);
        match batches.last_mut() {
            Some(batch) if size <= room => {
                room -= size;
                batch.push(item);
            }
            _ => {
                room = most.saturating_sub(size);
                batches.push(vec![item]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_keep_the_order() {
        let sizes = vec![3, 4, 5, 20, 1, 9, 1];
        assert_eq!(
            batches(sizes, 10, |size| *size),
            [vec![3, 4], vec![5], vec![20], vec![1, 9], vec![1]]
        );
        assert!(batches(Vec::new(), 10, |size: &usize| *size).is_empty());
    }
}
